"""What the process keeps of memory that it has freed: little, where it would be gigabytes.

glibc gives each thread a heap of its own, and once a large block was freed it takes the next one
of that size from such a heap and keeps it there. Eight threads that have decoded an image of 25
megapixels each then hold 2.4 GB for ever; with the settings here, less than 10 MB.
"""

import ctypes
import sys

# Numbers of <malloc.h>, and what this program sets them to.
_SETTINGS = (
    (-8, 2),  # M_ARENA_MAX: heaps; threads that hold Python's lock rarely wait for one
    (-3, 2**20),  # M_MMAP_THRESHOLD, bytes: larger blocks go back as soon as they are freed
    (-1, 4 * 2**20),  # M_TRIM_THRESHOLD, bytes: so much may stay at the end of a heap
)


def give_back_what_is_freed() -> None:
    """Let the C library give large blocks back to the system; call it before threads are started.

    Other systems, and other C libraries than glibc, do so by themselves or cannot be told.
    """
    if sys.platform != "linux":
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        for number, value in _SETTINGS:
            set_option(number, value)
