"""A model version on disk, the engines that run it, and what is decided."""

# What the command lines offer; here, since `--help` must not wait for `engines`.
ENGINES = ("auto", "openvino", "keras")
PRECISIONS = ("auto", "f32", "bf16", "int8")
