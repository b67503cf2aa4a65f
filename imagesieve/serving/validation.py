"""Values -> the structs in `schemas`, and msgspec's errors -> one sentence about one field."""

import functools
import re
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from imagesieve.serving.errors import BadParameterError, MalformedBodyError, RequestError
from imagesieve.serving.limits import ServingLimits

Schema = TypeVar("Schema", bound=msgspec.Struct)

_NUMBER = re.compile(r"-?[0-9]{0,3}\.?[0-9]{1,20}(e[+-]?[0-9]{1,3})?", re.IGNORECASE)
# A field's name may hold anything, so that the path is what the error ends with.
_LOCATED = re.compile(r"(.*) - at `\$((?:\.\w+|\[\d+\])*)`", re.DOTALL)
_BOOLEANS = {"true": True, "false": False}


def check(value: object, schema: type[Schema], limits: ServingLimits) -> Schema:
    """Return a value as a struct.

    Args:
        value: of JSON types, from `parse_json` or `with_numbers`.
        schema: a struct of `schemas`.
        limits: those that fields name by `x-limit`.

    Raises:
        RequestError: it does not suit the struct.
    """
    try:
        checked = msgspec.convert(value, schema)
    except UnicodeEncodeError as error:  # half a character
        raise MalformedBodyError("A name or a word cannot be encoded as UTF-8.") from error
    except msgspec.ValidationError as error:
        raise _refusal(error, schema, limits) from error
    for name, field in _fields(schema).items():
        most = _most(field.type, limits)
        if most is not None and getattr(checked, name) > most:
            raise BadParameterError(f"{name} must be {_expected(field.type, limits)}.")
    return checked


def unique(fields: Iterable[tuple[str, object]]) -> dict[str, object]:
    """Return fields by name.

    Raises:
        BadParameterError: one was given twice.
    """
    found: dict[str, object] = {}
    for name, value in fields:
        if name in found:
            raise BadParameterError(f"The option {name[:100]} was given twice.")
        found[name] = value
    return found


def with_numbers(
    texts: Sequence[tuple[str, Any]], schema: type[msgspec.Struct]
) -> list[tuple[str, object]]:
    """Read the numbers and booleans of a form or query, which has texts only."""
    return [(name, _read_text(value, _fields(schema).get(name))) for name, value in texts]


def _read_text(text: str, field: inspect.Field | None) -> object:
    kind = _bare(field.type) if field else None
    if isinstance(kind, inspect.BoolType):
        return _BOOLEANS.get(text, text)
    if isinstance(kind, inspect.IntType | inspect.FloatType) and _NUMBER.fullmatch(text):
        number = float(text)
        return int(number) if number.is_integer() else number
    return text


def _refusal(error: msgspec.ValidationError, schema: type, limits: ServingLimits) -> RequestError:
    if isinstance(error.__cause__, ValueError):  # from `__post_init__`, a sentence already
        return BadParameterError(str(error.__cause__))
    located = _LOCATED.fullmatch(str(error))
    what, path = located.groups() if located else (str(error), "")
    kind, owner = _type_at(path, schema)
    called = getattr(owner, "called", "")
    missing = re.fullmatch("Object missing required field `(.+)`", what)
    unknown = re.fullmatch("Object contains unknown field `(.*)`", what, re.DOTALL)
    if unknown:
        names = " or ".join(_fields(owner)) or "none"
        noun = "field" if path or called else "option"
        return BadParameterError(f"There is no {noun} {unknown[1][:100]!r}: use {names}.")
    if missing and called:
        return MalformedBodyError(f"{called} has no {missing[1]}.")
    if missing:
        path, kind = f"{path}.{missing[1]}", _fields(owner)[missing[1]].type
    is_container = isinstance(_bare(kind), inspect.StructType | inspect.ListType)
    error_class = MalformedBodyError if is_container else BadParameterError
    return error_class(_sentence(what, path.removeprefix("."), kind, limits))


def _sentence(what: str, path: str, kind: inspect.Type, limits: ServingLimits) -> str:
    if "sentence" in _extra(kind):
        value = what.removeprefix("Invalid enum value ") if "enum" in what else "of this type"
        index = path.rpartition("[")[2].rstrip("]")
        return _extra(kind)["sentence"].format(value=value[:100], index=index)
    bare = _bare(kind)
    called = getattr(bare.cls, "called", "") if isinstance(bare, inspect.StructType) else ""
    return f"{called or path or 'The JSON body'} must be {_expected(kind, limits)}."


def _expected(kind: inspect.Type, limits: ServingLimits) -> str:
    """Return the words for what a value must be."""
    if "expected" in _extra(kind):
        return _extra(kind)["expected"]
    match _bare(kind):
        case inspect.IntType(ge=least, le=most):
            return f"a whole number from {least} to {most or _most(kind, limits)}"
        case inspect.FloatType(ge=least, le=most):
            return f"a number from {least} to {most}"
        case inspect.StrType(min_length=least, max_length=most) if most:
            return f"a text of {f'{least} to' if least else 'at most'} {most} characters"
        case inspect.StrType():
            return "a text"
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType(values=values):
            return " or ".join(map(str, values))
        case inspect.ListType():
            return "a list"
        case _:
            return "an object"


def _type_at(path: str, schema: type) -> tuple[inspect.Type, type]:
    """Return the type of the value at a path such as `.images[0].url`, and the last struct."""
    kind, owner = inspect.type_info(schema), schema
    for name, _index in re.findall(r"\.(\w+)|\[(\d+)\]", path):
        bare = _bare(kind)
        if isinstance(bare, inspect.UnionType):
            ways = (_bare(one) for one in bare.types)
            bare = next(one for one in ways if isinstance(one, inspect.ListType))
        if isinstance(bare, inspect.ListType):
            kind = bare.item_type
        elif name in _fields(owner):
            kind = _fields(owner)[name].type
        owner = kind.cls if isinstance(kind, inspect.StructType) else owner
    return kind, owner


@functools.cache
def _fields(schema: type) -> dict[str, inspect.Field]:
    kind = inspect.type_info(schema)
    fields = kind.fields if isinstance(kind, inspect.StructType) else ()
    return {field.encode_name: field for field in fields}


def _most(kind: inspect.Type, limits: ServingLimits) -> int | None:
    """Return the limit of a number that `x-limit` names."""
    limit = (getattr(kind, "extra_json_schema", None) or {}).get("x-limit")
    return getattr(limits, limit) if limit and isinstance(_bare(kind), inspect.IntType) else None


def _extra(kind: inspect.Type) -> dict[str, str]:
    return getattr(kind, "extra", None) or {}


def _bare(kind: inspect.Type) -> inspect.Type:
    return kind.type if isinstance(kind, inspect.Metadata) else kind
