# What the command, training and measuring need beyond that.
find_package(CLI11 REQUIRED)
find_package(Eigen3 REQUIRED NO_MODULE)

find_path(TOMLPLUSPLUS_INCLUDE toml++/toml.h REQUIRED)
add_library(tomlplusplus INTERFACE)
target_include_directories(tomlplusplus SYSTEM INTERFACE ${TOMLPLUSPLUS_INCLUDE})
add_library(tomlplusplus::tomlplusplus ALIAS tomlplusplus)
