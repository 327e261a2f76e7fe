# The program calls libraries that it loads (core/shared_library.h) through tables of functions. Both must have been
# compiled with the same ones, which are known by a hash of the headers that declare them: each source that is named
# sees it as that macro.
function(linnet_interface macro source)
  set(interface "")
  foreach(header ${ARGN})
    set(path ${PROJECT_SOURCE_DIR}/src/${header})
    set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${path})
    file(SHA256 ${path} sum)
    string(APPEND interface ${sum})
  endforeach()
  string(SHA256 interface "${interface}")
  string(SUBSTRING ${interface} 0 8 interface)
  set(${macro} "${macro}=0x${interface}u" PARENT_SCOPE)
  set_source_files_properties(src/${source} PROPERTIES COMPILE_DEFINITIONS "${macro}=0x${interface}u")
endfunction()

linnet_interface(LINNET_GPU_INTERFACE core/gpu.cpp core/gpu.h core/device.h core/dtype.h core/memory.h
                 ops/gpu_kernels.h ops/matrix_view.h ops/diffusion_terms.h)
linnet_interface(LINNET_MPI_INTERFACE core/mpi.cpp core/mpi.h)
