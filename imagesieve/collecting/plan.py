"""A plan: a TOML file with the classes of a data set, their searches and their sizes.

`examples/menu-or-not.toml` shows one. Each class fills `output/train/<class>` and, if anything is
said of validation, `output/validation/<class>`. The sizes are `limit`, of which validation takes
`validation_fraction` or `validation_limit`; or `train_limit` and `validation_limit`, which add up.
What a class says wins over what stands at the top. `validation_queries` are searches of its own for
validation.
"""

import contextlib
import dataclasses
import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

from imagesieve.class_folders import TRAIN, VALIDATION, to_class_name
from imagesieve.collecting.bing.queries import Query, SearchOptions
from imagesieve.collecting.targets import Side, Target, validation_share
from imagesieve.errors import UsageError
from imagesieve.files import read_bytes

_MAX_BYTES = 2**20

_Count = Annotated[int, Meta(ge=1, le=1_000_000)]
_Text = Annotated[str, Meta(min_length=1)]
_Kind = TypeVar("_Kind")


class _Sizes(msgspec.Struct, kw_only=True):
    limit: _Count = 100  # images of a class
    train_limit: _Count | None = None
    validation_limit: _Count | None = None
    validation_fraction: Annotated[float, Meta(gt=0, lt=1)] | None = None


class _Top(_Sizes, kw_only=True):
    output: _Text = "data"
    classes: dict[str, Any] = msgspec.field(name="class", default_factory=dict)


class _Class(_Sizes, kw_only=True):
    queries: Annotated[list[_Text], Meta(min_length=1)]
    validation_queries: Annotated[list[_Text], Meta(min_length=1)] = []


_ALTERNATIVES = (("limit", "train_limit"), ("validation_limit", "validation_fraction"))
_OPTIONS = [field.name for field in dataclasses.fields(SearchOptions)]
_TOP_KEYS = [*_Top.__struct_encode_fields__, *_OPTIONS]
_CLASS_KEYS = [*_Class.__struct_encode_fields__, *_OPTIONS]


def read_plan(path: Path, output: Path | None = None) -> list[Target]:
    """Return the targets of a plan file, in the order of its classes.

    A class whose validation has searches of its own becomes two targets, one for each folder.
    `output` is the folder of the data set, instead of the plan's own; a relative one, in the plan
    too, counts from the current directory.

    Raises:
        UsageError: the file cannot be read, or something in it makes no sense; the message names
            the file, the class and the key, or line and column.
    """
    values = _parse(path)
    with _at(str(path)):
        _check_keys(values, _TOP_KEYS, _CLASS_KEYS, "belongs to a class: write it in [class.NAME]")
        top = _convert(values, _Top)
        _convert(values, SearchOptions)
        folder = output or _folder(top.output)
        if not top.classes:
            raise UsageError("there is no class: write [class.NAME], and queries = [...] below it.")
    targets: list[Target] = []
    taken: dict[str, str] = {}
    for name, fields in top.classes.items():
        with _at(f"{path}, class {name!r}"):
            _check_name(name, taken)
            if not isinstance(fields, dict):
                raise UsageError(f"it is not a table: write [class.{name}], its queries below.")
            _check_keys(fields, _CLASS_KEYS, _TOP_KEYS, "belongs at the top, above the classes")
            merged = {**_inherited(values, fields), **fields}
            options = _convert(merged, SearchOptions)
            targets += _targets(name, _convert(merged, _Class), options, folder)
    return targets


@contextlib.contextmanager
def _at(place: str) -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{place}: {error}") from error


def _parse(path: Path) -> dict[str, Any]:
    data = read_bytes(path, _MAX_BYTES, "plan")
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


def _check_keys(
    values: Mapping[str, Any], keys: list[str], other_keys: list[str], advice: str
) -> None:
    for key in values:
        if key in keys:
            continue
        if key in other_keys:
            raise UsageError(f"{key} {advice}.")
        near = difflib.get_close_matches(key.replace("-", "_").lower(), keys, n=1)
        known = f"{near[0]} is the nearest one." if near else f"the keys are {', '.join(keys)}."
        raise UsageError(f"unknown key {key!r}: {known}")
    for pair in _ALTERNATIVES:
        if values.keys() >= set(pair):
            raise UsageError(f"{' and '.join(pair)} contradict each other: keep one of them.")


def _inherited(top: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what stands at the top, save the alternatives to what the class says."""
    replaced = {key for pair in _ALTERNATIVES if fields.keys() & set(pair) for key in pair}
    return {key: value for key, value in top.items() if key not in replaced}


def _convert(values: Mapping[str, Any], kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).replace(" | null", "").partition(" - at `$.")
        key = re.split(r"\W", where)[0]
        if key not in values:
            raise UsageError(f"it has no {problem.partition('`')[2].rstrip('`')}.") from error
        text = repr(values[key])
        shown = text if len(text) <= 60 else f"{text[:57]}..."
        raise UsageError(f"{key} = {shown}: {problem[0].lower()}{problem[1:]}.") from error
    except UsageError as error:
        # It is about the option of the command line, whose name differs in dashes only.
        option, space, rest = str(error).removeprefix("--").partition(" ")
        raise UsageError(f"{option.replace('-', '_')}{space}{rest}") from error


def _folder(text: str) -> Path:
    if not text.strip() or "\0" in text:
        raise UsageError(f"output = {text!r} is not the name of a folder.")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:  # "~name" of a user who does not exist
        raise UsageError(f"output = {text!r}: {error}") from error


def _check_name(name: str, taken: dict[str, str]) -> None:
    if (usable := to_class_name(name)) != name:
        raise UsageError(f"a folder cannot have this name everywhere; {usable!r} would do.")
    if (other := taken.setdefault(name.casefold(), name)) != name:
        raise UsageError(f"it differs from {other!r} only in case, so both may be one folder.")


def _targets(name: str, values: _Class, options: SearchOptions, output: Path) -> Iterator[Target]:
    queries = _queries("queries", values.queries, options)
    own_queries = _queries("validation_queries", values.validation_queries, options)
    num_train, num_validation = _sizes(values)
    train = Side(output / TRAIN / name, num_train)
    validation = Side(output / VALIDATION / name, num_validation)
    if both := set(queries) & set(own_queries):
        raise UsageError(
            f"{both.pop().text!r} is in queries and in validation_queries: leave it out of the "
            "latter, or let both folders share the results by leaving those out altogether."
        )
    if not own_queries:
        yield Target(name, queries, train, validation if num_validation else None)
    elif not num_validation:
        raise UsageError("validation_queries needs a validation_limit beside it.")
    else:
        yield Target(name, queries, train)
        yield Target(f"{name} ({VALIDATION})", own_queries, validation)


def _queries(key: str, texts: list[str], options: SearchOptions) -> tuple[Query, ...]:
    queries = tuple(Query(" ".join(text.split()), options) for text in texts)
    for query in queries:
        if queries.count(query) > 1:
            raise UsageError(f"{key} has {query.text!r} more than once.")
    return queries


def _sizes(values: _Class) -> tuple[int, int]:
    """Return the images for training and those for validation; 0 if these are not mentioned."""
    limit, share, fraction = values.limit, values.validation_limit, values.validation_fraction
    if values.train_limit is not None:
        if fraction is not None:
            raise UsageError(
                "validation_fraction does not go with train_limit: write validation_limit instead "
                "of the fraction, or limit instead of train_limit."
            )
        return values.train_limit, share or 0
    if fraction is not None:
        share = validation_share(limit, fraction)
    if share is not None and not 0 < share < limit:
        raise UsageError(f"limit = {limit} is too few: validation takes {share} of them.")
    return limit - (share or 0), share or 0
