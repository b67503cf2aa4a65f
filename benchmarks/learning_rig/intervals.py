"""Means and their intervals over a few runs."""

import math
import statistics
from collections.abc import Sequence

# Two-sided 95 % of Student's t, by degrees of freedom from 1 on.
_T_95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


def mean_and_half_width(values: Sequence[float]) -> tuple[float, float | None]:
    """Give the mean and half of its 95 % t-interval, which a single value does not have."""
    mean = statistics.fmean(values)
    freedom = len(values) - 1
    if not freedom:
        return mean, None
    t = _T_95[min(freedom, len(_T_95)) - 1]  # beyond the table: a little too wide
    return mean, t * statistics.stdev(values) / math.sqrt(len(values))


def text(values: Sequence[float], digits: int, factor: float = 1.0) -> str:
    """Give `mean ± half` with so many digits, of the values times a factor."""
    mean, half = mean_and_half_width([factor * value for value in values])
    return f"{mean:.{digits}f}" + ("" if half is None else f" ± {half:.{digits}f}")
