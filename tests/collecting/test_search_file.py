"""The file of queries: searched once each, in order, and never two for one folder."""

import pytest

from imagesieve.collecting.options import _distinct
from imagesieve.errors import UsageError


def test_repeated_queries_are_searched_once_in_order() -> None:
    assert _distinct(["b", "a", "b", "c", "a"]) == ["b", "a", "c"]
    assert _distinct([]) == []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a/b", "a?b"),
        ("Menu", "menu"),
        ("Straße", "STRASSE"),
        ("café", "cafe\u0301"),
        ("red panda", "red_panda"),
        ("x" * 151, "x" * 152),
        ("CON", "_con"),
    ],
)
def test_queries_that_would_share_a_folder_are_refused_by_name(one: str, other: str) -> None:
    with pytest.raises(UsageError, match="would share the folder") as caught:
        _distinct(["first", one, other])
    assert repr(one) in str(caught.value)
    assert repr(other) in str(caught.value)
