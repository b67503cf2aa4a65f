"""Any bytes or path -> a checked RGB array; `decode` is the one road for pixels."""

from imagesieve.images.decoding import DEFAULT_LIMITS as DEFAULT_LIMITS
from imagesieve.images.decoding import EXTENSIONS as EXTENSIONS
from imagesieve.images.decoding import FORMATS as FORMATS
from imagesieve.images.decoding import PIXEL_CONTRACT as PIXEL_CONTRACT
from imagesieve.images.decoding import DecodedImage as DecodedImage
from imagesieve.images.decoding import DecodingLimit as DecodingLimit
from imagesieve.images.decoding import Limits as Limits
from imagesieve.images.decoding import decode as decode
from imagesieve.images.decoding import further_frames as further_frames
from imagesieve.images.decoding import large_images_take_turns as large_images_take_turns
from imagesieve.images.decoding import sniff as sniff
