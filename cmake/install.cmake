# cmake --install: the command, the libraries that it loads where the command looks for it, and what a C++ program needs
# (find_package(linnet)).
include(CMakePackageConfigHelpers)
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/linnet)

install(TARGETS linnet_api linnet_builtin linnet_pipeline linnet_store linnet_models linnet_diffusion linnet_nn linnet_ops
                linnet_io linnet_core linnet_options EXPORT linnet ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
set_target_properties(linnet_api PROPERTIES EXPORT_NAME linnet)
install(EXPORT linnet NAMESPACE linnet:: DESTINATION ${package} FILE linnetTargets.cmake)
install(DIRECTORY include/linnet DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

write_basic_package_version_file(linnetConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES cmake/linnetConfig.cmake cmake/dependencies.cmake ${CMAKE_CURRENT_BINARY_DIR}/linnetConfigVersion.cmake
        DESTINATION ${package})

if(LINNET_COMMAND)
  install(TARGETS linnet RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()
if(TARGET linnet_cuda)
  # As it was built, with the toolkit's folder, and beside bin (core/gpu.cpp).
  install(PROGRAMS $<TARGET_FILE:linnet_cuda> DESTINATION lib/linnet)
endif()
if(TARGET linnet_mpi)
  install(TARGETS linnet_mpi LIBRARY DESTINATION lib/linnet)
endif()
