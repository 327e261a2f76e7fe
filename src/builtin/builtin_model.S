// A file's bytes and how many they are, aligned as tensors like it; none when LINNET_BUILTIN_MODEL is not defined.
// For GNU as and Clang's assembler; "%progbits" rather than "@progbits", which begins a comment on Arm.
        .section .rodata.linnet_builtin_model, "a", %progbits
        .global linnet_builtin_model
        .global linnet_builtin_model_size
        .balign 64
linnet_builtin_model:
#ifdef LINNET_BUILTIN_MODEL
        .incbin LINNET_BUILTIN_MODEL
#endif
1:
        .balign 8
linnet_builtin_model_size:
        .quad 1b - linnet_builtin_model
        .section .note.GNU-stack, "", %progbits
