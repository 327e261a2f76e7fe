# An installed Linnet, for find_package(linnet): gives linnet::linnet.
include(${CMAKE_CURRENT_LIST_DIR}/dependencies.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/linnetTargets.cmake)
