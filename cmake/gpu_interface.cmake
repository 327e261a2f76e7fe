# The program calls the GPU's library through tables of functions. Both must have been compiled with the same ones, which
# are known by a hash of the headers that declare them.
set(interface "")
foreach(header core/gpu.h core/device.h core/dtype.h core/memory.h ops/gpu_kernels.h ops/matrix_view.h ops/diffusion_terms.h)
  set(path ${PROJECT_SOURCE_DIR}/src/${header})
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${path})
  file(SHA256 ${path} sum)
  string(APPEND interface ${sum})
endforeach()
string(SHA256 interface "${interface}")
string(SUBSTRING ${interface} 0 8 interface)
set(LINNET_GPU_INTERFACE "LINNET_GPU_INTERFACE=0x${interface}u")
set_source_files_properties(src/core/gpu.cpp PROPERTIES COMPILE_DEFINITIONS ${LINNET_GPU_INTERFACE})
