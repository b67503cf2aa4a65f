"""An image's fingerprint, which hardly changes when the image is scaled or encoded again.

A difference hash of 256 bits (64 cannot tell pages of text apart) finds candidates; the colours of
a 4 × 4 grid confirm them, since on flat images the hash has little to say. Measured on some 1,400
photographs and pages: of 1,750 copies (scaled down to a third, JPEG down to quality 30, GIF, WebP)
19 in 20 are recognised, and one pair of pages of the same menu is taken for copies too.
"""

from collections.abc import Sequence

import numpy as np

CHECK_SIZE = (64, 64)  # (height, width): decoding for this finds every damage in little time
NUM_BYTES = 81

_HASH_SIDE = 16  # cells; each is compared with its left neighbour
_HASH_BYTES = _HASH_SIDE * _HASH_SIDE // 8
_COLOUR_SIDE = 4
_NEAR_BITS = 16  # of 256 that may differ between near-duplicates
_NEAR_LEVELS = 12  # of 255 by which any colour of the grid may differ
_EDGE_LEVELS = 2  # of 255 between neighbouring cells; less may be the encoder's noise
_MIN_EDGES = 16  # below, an image is flat; the flattest photograph measured had 57
_AT_ONCE = 2**18  # distances, half a megabyte, which stay within the cache


def fingerprint(pixels: np.ndarray) -> bytes:
    """Return `NUM_BYTES` bytes: the hash, the colours, and how many edges the hash saw (up to 255).

    `pixels` are (height, width, 3) uint8, RGB; of `CHECK_SIZE` where fingerprints are compared.
    """
    from PIL import Image

    image = Image.fromarray(pixels)
    box = Image.Resampling.BOX
    grid = np.asarray(image.convert("L").resize((_HASH_SIDE + 1, _HASH_SIDE), box), dtype=np.int16)
    colours = np.asarray(image.resize((_COLOUR_SIDE, _COLOUR_SIDE), box), dtype=np.uint8)
    steps = grid[:, 1:] - grid[:, :-1]
    num_edges = min(255, int(np.count_nonzero(np.abs(steps) >= _EDGE_LEVELS)))
    return np.packbits(steps > 0).tobytes() + colours.tobytes() + bytes([num_edges])


class FingerprintIndex:
    """An index that finds the near-duplicates of an image among those that were added."""

    def __init__(self) -> None:
        self._rows = np.zeros((64, NUM_BYTES), np.uint8)
        self._words = np.zeros((64, _HASH_BYTES // 8), np.uint64)
        self._keys: list[str] = []

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: str, fingerprint: bytes) -> None:
        """Add an image under a name, which need not be new."""
        count = len(self._keys)
        if count == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
            self._words = np.concatenate([self._words, np.zeros_like(self._words)])
        self._rows[count] = np.frombuffer(fingerprint, np.uint8)
        self._words[count] = np.frombuffer(fingerprint, np.uint64, _HASH_BYTES // 8)
        self._keys.append(key)

    def find(self, fingerprint: bytes, start: int = 0) -> list[str]:
        """Return the names of all near-duplicates in order; the first `start` are left out.

        While one thread adds, others may find what was there before.
        """
        count = len(self._keys)  # first: the arrays are never shorter than that
        words = np.frombuffer(fingerprint, np.uint64, _HASH_BYTES // 8)[np.newaxis]
        candidates = _candidates(words, self._words[start:count])
        row = np.frombuffer(fingerprint, np.uint8)[np.newaxis]
        _, found = _confirm(row, self._rows[start:count], *candidates)
        return [self._keys[start + index] for index in found]


def near_pairs(fingerprints: Sequence[bytes]) -> list[tuple[int, int]]:
    """Return pairs of positions, the smaller first, whose images are the same or nearly so."""
    rows = np.frombuffer(b"".join(fingerprints), np.uint8).reshape(-1, NUM_BYTES)
    words = np.ascontiguousarray(rows[:, :_HASH_BYTES]).view(np.uint64)
    pairs: list[tuple[int, int]] = []
    step = _AT_ONCE // (len(rows) + 1) + 1
    for start in range(0, len(rows), step):
        candidates = _candidates(words[start : start + step], words[start:])
        found = zip(*_confirm(rows[start:], rows[start:], *candidates), strict=True)
        pairs += [(int(one) + start, int(other) + start) for one, other in found if one < other]
    return pairs


def _candidates(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the row numbers of hashes that are nearly equal."""
    distances = np.zeros((len(one), len(other)), np.uint16)
    for word in range(one.shape[1]):
        distances += np.bitwise_count(one[:, word, np.newaxis] ^ other[:, word])
    return np.nonzero(distances <= _NEAR_BITS)


def _confirm(
    one: np.ndarray, other: np.ndarray, first: np.ndarray, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Keep those pairs of rows whose colours agree too, or which are equal if they are flat."""
    if not len(first):
        return first, second
    a, b = one[first], other[second]
    levels = np.abs(a[:, _HASH_BYTES:-1].astype(np.int16) - b[:, _HASH_BYTES:-1]).max(axis=1)
    is_flat = np.minimum(a[:, -1], b[:, -1]) < _MIN_EDGES
    is_near = np.where(is_flat, (a == b).all(axis=1), levels <= _NEAR_LEVELS)
    return first[is_near], second[is_near]
