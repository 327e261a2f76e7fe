# Compiler flags of every target: warnings, sanitizers, and no -march (kernels dispatch at run time).
add_library(linnet_options INTERFACE)
target_compile_options(linnet_options INTERFACE
  "$<$<COMPILE_LANGUAGE:CXX>:-Wall;-Wextra;-Wpedantic;-Wshadow;-Wnon-virtual-dtor;-Woverloaded-virtual>")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(linnet_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:-Wcast-align=strict>")
endif()
# Kernels say where they want a fused multiply-add. Were the compiler to choose, the same value could round
# differently in whole vectors and in what is left over, and so depend on how threads share the work.
target_compile_options(linnet_options INTERFACE -ffp-contract=off)
if(LINNET_WERROR)
  target_compile_options(linnet_options INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:-Werror>")
endif()
if(LINNET_SANITIZE)
  target_compile_options(linnet_options INTERFACE
    "$<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${LINNET_SANITIZE};-fno-omit-frame-pointer;-fno-sanitize-recover=all>")
  target_link_options(linnet_options INTERFACE -fsanitize=${LINNET_SANITIZE})
endif()
# Instruction sets that kernels are compiled for: the baseline (scalar, with GCC), AVX2 and AVX-512, or NEON. Highway's other
# x86 targets (SSSE3, SSE4, AVX3_DL, AVX3_ZEN4, AVX3_SPR, by their bits) bring nothing to these kernels and cost build
# time; vectors whose size is known when they run alone (SVE, RVV) cannot be kept in arrays, as kernels do.
target_compile_definitions(linnet_options INTERFACE "HWY_DISABLED_TARGETS=0x200F0018D0")
