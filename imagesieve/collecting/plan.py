"""A plan: a TOML file with the classes of a data set, their searches and their sizes.

`examples/menu-or-not.toml` shows one. Each class fills `output/train/<class>` and, if anything is
said of validation, `output/validation/<class>`. The sizes are `limit`, of which validation takes
`validation_fraction` or `validation_limit`; or `train_limit` and `validation_limit`, which add up.
What a class says wins over what stands at the top. `validation_queries` are searches of its own for
validation.
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from imagesieve.class_folders import to_class_name
from imagesieve.collecting.bing.queries import Query, SearchOptions
from imagesieve.collecting.targets import TRAIN, VALIDATION, Side, Target, split_target
from imagesieve.errors import UsageError

DEFAULT_OUTPUT = Path("data")
DEFAULT_LIMIT = 100  # images of a class, unless the plan says otherwise

_MAX_BYTES = 2**20
_MAX_LIMIT = 1_000_000
_OPTIONS = tuple(field.name for field in dataclasses.fields(SearchOptions))
_TOTALS = ("limit", "train_limit")
_SHARES = ("validation_limit", "validation_fraction")
_TOP_KEYS = ("output", "class", *_TOTALS, *_SHARES, *_OPTIONS)
_CLASS_KEYS = ("queries", "validation_queries", *_TOTALS, *_SHARES, *_OPTIONS)


class _Table(NamedTuple):
    """The values at the top of the file, or those of one class."""

    place: str  # for errors: the file, and the class if it is one
    values: Mapping[str, Any]
    name: str = ""

    def error(self, sentence: str) -> UsageError:
        return UsageError(f"{self.place}: {sentence}")


class _Size(NamedTuple):
    """A number that decides how large a folder becomes, and how errors show it."""

    key: str
    value: Any
    text: str


def read_plan(path: Path, output: Path | None = None) -> list[Target]:
    """Return the targets of a plan file, in the order of its classes.

    A class whose validation has searches of its own becomes two targets, one for each folder.

    Args:
        path: the TOML file.
        output: the folder of the data set, instead of the plan's own. A relative one, in the plan
            too, counts from the current directory.

    Raises:
        UsageError: the file cannot be read, or something in it makes no sense; the message names
            the file, the class and the key, or line and column.
    """
    top = _Table(str(path), _parse(path))
    _check(top, _TOP_KEYS, _CLASS_KEYS, "belongs to a class: write it below [class.NAME]")
    for keys in (_TOTALS, _SHARES):
        _only_one_of(keys, top)
    _search_options(top)
    folder = output or _output(top)
    return [target for table in _classes(top) for target in _targets(table, top, folder)]


def _parse(path: Path) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise UsageError(f"The plan {path} cannot be read: {error}") from error
    if len(data) > _MAX_BYTES:
        raise UsageError(f"{path} has more than {_MAX_BYTES:,} bytes, which no plan needs.")
    try:
        # The line end makes errors at the very end name line and column like all others.
        return tomllib.loads(data.decode("utf-8-sig") + "\n")
    except UnicodeDecodeError as error:
        # Such an error counts from behind a byte order mark, the columns of the line do not.
        start = data.index(error.object) + error.start
        lines = data[:start].decode("utf-8-sig").split("\n")
        place = f"at line {len(lines)}, column {len(lines[-1]) + 1}"
        raise UsageError(f"{path} is not UTF-8 text ({place}): save it as UTF-8.") from error
    except ValueError as error:  # the message ends with line and column
        raise UsageError(f"{path} is not valid TOML: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{path} nests its values too deeply for a plan.") from error


def _output(top: _Table) -> Path:
    try:
        return Path(top.values.get("output", DEFAULT_OUTPUT)).expanduser()
    except RuntimeError as error:  # "~name" of a user who does not exist
        raise top.error(f"output = {_shown(top.values['output'])}: {error}") from error


def _classes(top: _Table) -> list[_Table]:
    classes = top.values.get("class")
    if not isinstance(classes, dict) or not classes:
        raise top.error("there is no class: write [class.NAME], and queries = [...] below it.")
    taken: dict[str, str] = {}
    tables = [
        _Table(f"{top.place}, class {name!r}", values, name) for name, values in classes.items()
    ]
    for table in tables:
        if (usable := to_class_name(table.name)) != table.name:
            raise table.error(f"a folder cannot have this name everywhere; {usable!r} would do.")
        if (other := taken.setdefault(table.name.casefold(), table.name)) != table.name:
            raise table.error(f"it differs from {other!r} only in case, so both may be one folder.")
        if not isinstance(table.values, dict):
            raise table.error(f"it is not a table: write [class.{table.name}], its queries below.")
        _check(table, _CLASS_KEYS, _TOP_KEYS, "belongs at the top, above the first class")
    return tables


def _check(table: _Table, keys: Sequence[str], other_keys: Sequence[str], advice: str) -> None:
    """Raise an error for keys that mean nothing here, and for values of the wrong kind."""
    for key, value in table.values.items():
        if key not in keys:
            raise table.error(f"{key} {advice}." if key in other_keys else _unknown(key, keys))
        is_right, expected = _KINDS.get(key, (lambda _: True, ""))
        if not is_right(value):
            raise table.error(f"{key} = {_shown(value)} is not {expected}.")


def _unknown(key: str, keys: Sequence[str]) -> str:
    near = difflib.get_close_matches(key.replace("-", "_").lower(), keys, n=1)
    advice = f"{near[0]} is the nearest one." if near else f"the keys are {', '.join(keys)}."
    return f"unknown key {key!r}: {advice}"


def _targets(table: _Table, top: _Table, output: Path) -> Iterator[Target]:
    options = _search_options(top, table)
    queries = _queries("queries", table, options)
    own_queries = _queries("validation_queries", table, options)
    num_train, num_validation = _sizes(table, top)
    train = Side(output / TRAIN / table.name, num_train)
    validation = Side(output / VALIDATION / table.name, num_validation)
    if not queries:
        raise table.error('it has no queries: write queries = ["what to search for"].')
    if both := set(queries) & set(own_queries):
        raise table.error(
            f"{both.pop().text!r} is in queries and in validation_queries: leave it out of the "
            "latter, or let both folders share the results by leaving those out altogether."
        )
    if not own_queries:
        yield Target(table.name, queries, train, validation if num_validation else None)
    elif not num_validation:
        raise table.error("validation_queries needs a validation_limit beside it.")
    else:
        yield Target(table.name, queries, train)
        yield Target(f"{table.name} ({VALIDATION})", own_queries, validation)


def _queries(key: str, table: _Table, options: SearchOptions) -> tuple[Query, ...]:
    texts = [" ".join(text.split()) for text in table.values.get(key, ())]
    for text in texts:
        if texts.count(text) > 1:
            raise table.error(f"{key} has {text!r} more than once.")
    return tuple(Query(text, options) for text in texts)


def _search_options(*tables: _Table) -> SearchOptions:
    """Return the options that these tables name; the later one wins."""
    values = {k: v for table in tables for k, v in table.values.items() if k in _OPTIONS}
    try:
        return SearchOptions(**values)
    except UsageError as error:
        # It is about the option of the command line, whose name differs in dashes only.
        option, space, rest = str(error).removeprefix("--").partition(" ")
        raise tables[-1].error(f"{option.replace('-', '_')}{space}{rest}") from error


def _sizes(table: _Table, top: _Table) -> tuple[int, int]:
    """Return the images for training and those for validation; 0 if these are not mentioned."""
    total = _size(_TOTALS, table, top) or _Size("limit", DEFAULT_LIMIT, f"limit = {DEFAULT_LIMIT}")
    share = _size(_SHARES, table, top)
    if share is None:
        return total.value, 0
    if total.key == "train_limit":
        if share.key == "validation_fraction":
            raise table.error(
                f"{share.text} does not go with {total.text}: write validation_limit instead of "
                "the fraction, or limit instead of train_limit."
            )
        return total.value, share.value
    num_validation = share.value
    if share.key == "validation_fraction":
        split = split_target(table.name, (), Path(), total.value, share.value)
        num_validation = split.limit - split.train.limit
    if not 0 < num_validation < total.value:
        raise table.error(f"{total.text} is too few for {share.text}: none is left for one side.")
    return total.value - num_validation, num_validation


def _size(keys: Sequence[str], table: _Table, top: _Table) -> _Size | None:
    """Return the one of `keys` that applies to a class: its own, else that at the top."""
    for source, origin in ((table, ""), (top, " (at the top)")):
        key = _only_one_of(keys, source)
        if key is not None:
            value = source.values[key]
            return _Size(key, value, f"{key} = {value}{origin}")
    return None


def _only_one_of(keys: Sequence[str], table: _Table) -> str | None:
    found = [key for key in keys if key in table.values]
    if len(found) > 1:
        raise table.error(f"{' and '.join(found)} contradict each other: keep one of them.")
    return found[0] if found else None


def _shown(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_filled_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MAX_LIMIT


def _is_fraction(value: object) -> bool:
    return isinstance(value, float) and 0 < value < 1


def _is_queries(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_filled_text, value))


_COUNT = (_is_count, f"a whole number from 1 to {_MAX_LIMIT:,}")
_QUERIES = (_is_queries, 'a list of search words such as ["red panda", "panda cub"]')
# Key -> whether a value is of the right kind, and how errors call that kind.
_KINDS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    **dict.fromkeys(_OPTIONS, (lambda value: isinstance(value, str), "a text in quotes")),
    **dict.fromkeys(("limit", "train_limit", "validation_limit"), _COUNT),
    **dict.fromkeys(("queries", "validation_queries"), _QUERIES),
    "validation_fraction": (_is_fraction, "a number between 0 and 1 such as 0.2"),
    "output": (_is_filled_text, "the name of a folder"),
}
