"""How a caller wants an image judged: the options, checked one by one."""

import dataclasses
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from imagesieve.serving.errors import BadParameterError
from imagesieve.serving.limits import ServingLimits

MAX_TOP_K = 1000
MAX_DATA_ID_CHARS = 128


@dataclasses.dataclass(frozen=True)
class PredictOptions:
    """How a caller wants an image judged.

    Attributes:
        data_id: the caller's own name for it, given back in the answer.
        top_k: how many classes to answer with, 1 to `MAX_TOP_K`; None for all.
        threshold: confidence, 0 to 1, below which the fallback class is answered; None leaves the
            model's decision policy in force.
        frames: how many frames of an animation to look at.
        label: the class that an explanation is about; None for the most probable.
    """

    data_id: str | None = None
    top_k: int | None = None
    threshold: float | None = None
    frames: int = 1
    label: str | None = None


def checked_options(
    given: Sequence[tuple[str, object]], names: Sequence[str], limits: ServingLimits
) -> PredictOptions:
    """Check options.

    Args:
        given: (name, value) of each, in the order sent.
        names: of those that are taken here.
        limits: see there.

    Raises:
        BadParameterError: one is unknown, stands there twice, or has a wrong value.
    """
    checked: dict[str, Any] = {}
    for name, value in given:
        if name not in names:
            raise BadParameterError(f"There is no option {name[:100]!r}: use {listed(names)}.")
        if name in checked:
            raise BadParameterError(f"The option {name} was given twice.")
        checked[name] = _OPTIONS[name](value, limits)
    return PredictOptions(**checked)


def with_numbers(texts: Sequence[tuple[str, str]]) -> list[tuple[str, object]]:
    """Read the numbers of a form or query, which knows texts only; in JSON they are numbers."""
    return [(name, _NUMBERS.get(name, str)(value)) for name, value in texts]


def _as_whole(value: str) -> object:
    return int(value) if re.fullmatch("[0-9]{1,9}", value) else value


def _as_real(value: str) -> object:
    is_real = re.fullmatch(r"-?[0-9]{0,3}\.?[0-9]{1,20}(e[+-]?[0-9]{1,3})?", value, re.IGNORECASE)
    return float(value) if is_real else value


def _data_id(value: object, _limits: ServingLimits) -> str:
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_DATA_ID_CHARS:
        raise BadParameterError(f"data_id must be a text of 1 to {MAX_DATA_ID_CHARS} characters.")
    # Cc: control characters; Cs: halves of a character, which are no text that could be encoded.
    if any(unicodedata.category(sign) in ("Cc", "Cs") for sign in value):
        raise BadParameterError("data_id has characters that cannot be printed.")
    return value


def _top_k(value: object, _limits: ServingLimits) -> int:
    return _whole_number("top_k", value, MAX_TOP_K)


def _frames(value: object, limits: ServingLimits) -> int:
    return _whole_number("frames", value, limits.max_frames)


def _whole_number(name: str, value: object, most: int) -> int:
    if isinstance(value, float) and value.is_integer():  # JSON knows one kind of number
        value = int(value)
    if type(value) is not int or not 1 <= value <= most:
        raise BadParameterError(f"{name} must be a whole number from 1 to {most}.")
    return value


def _threshold(value: object, _limits: ServingLimits) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise BadParameterError("threshold must be a number from 0 to 1.")
    return float(value)


def _label(value: object, _limits: ServingLimits) -> str:
    if not isinstance(value, str) or not value:
        raise BadParameterError("label must be the name of a class.")
    return value


def listed(names: Sequence[str]) -> str:
    """Give names for a message."""
    return " or ".join(names) if names else "none"


_NUMBERS: Mapping[str, Callable[[str], object]] = MappingProxyType(
    {"top_k": _as_whole, "frames": _as_whole, "threshold": _as_real}
)
_OPTIONS: Mapping[str, Callable[[object, ServingLimits], object]] = MappingProxyType(
    {
        "data_id": _data_id,
        "top_k": _top_k,
        "threshold": _threshold,
        "frames": _frames,
        "label": _label,
    }
)
