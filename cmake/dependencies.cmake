# What Linnet links to; docs/architecture.md says why each. An installed Linnet reads this file, too.
find_package(PkgConfig REQUIRED)
find_package(OpenMP REQUIRED)
find_package(fmt REQUIRED)
find_package(JPEG REQUIRED)
find_package(nlohmann_json REQUIRED)
pkg_check_modules(PICTURES REQUIRED IMPORTED_TARGET libpng zlib libwebp libwebpdemux libwebpmux)
pkg_check_modules(ARCHIVE REQUIRED IMPORTED_TARGET libarchive)
pkg_check_modules(SENTENCEPIECE REQUIRED IMPORTED_TARGET sentencepiece)
pkg_check_modules(HWY REQUIRED IMPORTED_TARGET libhwy)

# oneDNN's own package file asks for OpenCL's headers where the library can also use GPUs (Debian's); Linnet does not.
find_path(DNNL_INCLUDE dnnl.hpp REQUIRED)
find_library(DNNL_LIBRARY dnnl REQUIRED)
if(NOT TARGET DNNL::dnnl)
  add_library(DNNL::dnnl UNKNOWN IMPORTED)
  set_target_properties(DNNL::dnnl PROPERTIES IMPORTED_LOCATION ${DNNL_LIBRARY}
                                              INTERFACE_INCLUDE_DIRECTORIES ${DNNL_INCLUDE})
endif()
