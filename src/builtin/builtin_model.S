// Files' bytes and how many they are, aligned as tensors like it; none of a file that is not defined.
// For GNU as and Clang's assembler; "%progbits" rather than "@progbits", which begins a comment on Arm.
#define BEGIN(name)                       \
        .global linnet_builtin_##name;      \
        .global linnet_builtin_##name##_size; \
        .balign 64;                         \
linnet_builtin_##name:
#define END(name)                         \
linnet_builtin_##name##_end:                \
        .balign 8;                          \
linnet_builtin_##name##_size:               \
        .quad linnet_builtin_##name##_end - linnet_builtin_##name

        .section .rodata.linnet_builtin_model, "a", %progbits
        BEGIN(model)
#ifdef LINNET_BUILTIN_MODEL
        .incbin LINNET_BUILTIN_MODEL
#endif
        END(model)
        BEGIN(transformer)
#ifdef LINNET_BUILTIN_TRANSFORMER
        .incbin LINNET_BUILTIN_TRANSFORMER
#endif
        END(transformer)
        BEGIN(text_encoder)
#ifdef LINNET_BUILTIN_TEXT_ENCODER
        .incbin LINNET_BUILTIN_TEXT_ENCODER
#endif
        END(text_encoder)
        BEGIN(tokenizer)
#ifdef LINNET_BUILTIN_TOKENIZER
        .incbin LINNET_BUILTIN_TOKENIZER
#endif
        END(tokenizer)
        .section .note.GNU-stack, "", %progbits
