"""Every error that is shown to a user.

ClassifierError                      the message is for the user as it stands; exit code 1
├── UsageError                       a wrong option or value, and nothing was done; exit code 2
├── OutputError                      something could not be written
├── PortError                        the server cannot listen on that address
├── DataError                        the data folder cannot be trained on
├── WeightsError                     pretrained weights are missing or belong to another network
├── EngineError                      no engine can run the model, or a run failed
├── ModelError                       a model version cannot be used
│   ├── ModelNotFoundError           nothing there
│   ├── ModelDamagedError            half copied, changed, or not what the manifest says
│   └── ModelTooNewError             written by a later release
├── SearchError                      the image search returned no usable page
└── ImageError                       one image cannot be used; carries its source
    ├── UnreadableImageError         the file cannot be opened
    ├── EmptyImageError              no bytes at all
    ├── TooManyBytesError            too many bytes
    ├── UnsupportedImageFormatError  not one of the accepted formats
    ├── TooManyPixelsError           width × height over the cap
    ├── ImageTooSmallError           a side below the minimum
    ├── TruncatedImageError          the file ends early
    └── UndecodableImageError        damaged in any other way

A message is one sentence or two: what happened, which file or field, what was expected, what to do.
Scripts print it in one line (`console.run_script`); the server turns it into a problem by the
tables of `serving.errors`.
"""

from typing import ClassVar


class ClassifierError(Exception):
    exit_code = 1


class UsageError(ClassifierError):
    exit_code = 2


class OutputError(ClassifierError):
    pass


class PortError(ClassifierError):
    pass


class DataError(ClassifierError):
    pass


class WeightsError(ClassifierError):
    pass


class EngineError(ClassifierError):
    pass


class ModelError(ClassifierError):
    pass


class ModelNotFoundError(ModelError):
    pass


class ModelDamagedError(ModelError):
    pass


class ModelTooNewError(ModelError):
    pass


class SearchError(ClassifierError):
    pass


class ImageError(ClassifierError):
    slug: ClassVar[str] = "undecodable-image"  # the kind of error in answers and tables

    def __init__(self, reason: str, source: str | None = None) -> None:
        super().__init__(f"{source}: {reason}" if source else reason)
        self.reason = reason  # without the source, for lists that print the source beside it
        self.source = source  # path or name of the image, or None for bare bytes


class UnreadableImageError(ImageError):
    slug = "unreadable-file"


class EmptyImageError(ImageError):
    slug = "empty-image"


class TooManyBytesError(ImageError):
    slug = "image-too-large"


class UnsupportedImageFormatError(ImageError):
    slug = "unsupported-image-format"


class TooManyPixelsError(ImageError):
    slug = "too-many-pixels"


class ImageTooSmallError(ImageError):
    slug = "image-too-small"


class TruncatedImageError(ImageError):
    slug = "truncated-image"


class UndecodableImageError(ImageError):
    pass
