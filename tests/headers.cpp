// Nothing: what belongs to it are the precompiled headers (CMakeLists.txt).
