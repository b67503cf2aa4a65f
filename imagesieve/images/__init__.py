"""Any bytes or path -> a checked RGB array; `decode` is the one road for pixels."""

from imagesieve.images.decoding import (
    DEFAULT_LIMITS,
    EXTENSIONS,
    FORMATS,
    PIXEL_CONTRACT,
    DecodedImage,
    DecodingLimit,
    Limits,
    decode,
    large_images_take_turns,
    sniff,
    to_rgb,
)

__all__ = [
    "DEFAULT_LIMITS",
    "EXTENSIONS",
    "FORMATS",
    "PIXEL_CONTRACT",
    "DecodedImage",
    "DecodingLimit",
    "Limits",
    "decode",
    "large_images_take_turns",
    "sniff",
    "to_rgb",
]
