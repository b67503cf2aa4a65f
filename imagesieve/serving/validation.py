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
_LOCATED = re.compile(r"(.*?)(?: - at `\$((?:\.\w+|\[\d+\])*)`)?", re.DOTALL)
_FIELD_ERROR = re.compile("Object (missing required|contains unknown) field `(.*)`", re.DOTALL)


def check(
    fields: Iterable[tuple[str, object]], schema: type[Schema], limits: ServingLimits
) -> Schema:
    """Return fields, of JSON types, as a struct of `schemas`, within the limits that it names.

    Raises:
        RequestError: they do not suit the struct, or one is there twice.
    """
    found: dict[str, object] = {}
    for name, value in fields:
        if name in found:
            raise BadParameterError(f"The option {name[:100]} was given twice.")
        found[name] = value
    try:
        checked = msgspec.convert(found, schema)
    except UnicodeEncodeError as error:  # half a character
        raise MalformedBodyError("A name or a word cannot be encoded as UTF-8.") from error
    except msgspec.ValidationError as error:
        raise _refusal(str(error), schema, limits) from error
    for name, field in _fields(schema).items():
        most = _most(field.type, limits)
        if most is not None and getattr(checked, name) > most:
            raise BadParameterError(f"{name} must be {_expected(field.type, limits)}.")
    return checked


def with_numbers(
    texts: Sequence[tuple[str, Any]], schema: type[msgspec.Struct]
) -> list[tuple[str, object]]:
    """Read the numbers and booleans of a form or query, which has texts only."""
    return [(name, _read_text(value, _fields(schema).get(name))) for name, value in texts]


def _read_text(text: str, field: inspect.Field | None) -> object:
    kind = _bare(field.type) if field else None
    if isinstance(kind, inspect.BoolType):
        return {"true": True, "false": False}.get(text, text)
    if isinstance(kind, inspect.IntType | inspect.FloatType) and _NUMBER.fullmatch(text):
        number = float(text)
        return int(number) if number.is_integer() else number
    return text


def _refusal(sentence: str, schema: type, limits: ServingLimits) -> RequestError:
    located = _LOCATED.fullmatch(sentence)
    what, path = (located[1], located[2] or "") if located else (sentence, "")
    kind, owner = _type_at(path, schema)
    faulty = _FIELD_ERROR.fullmatch(what)
    if faulty and faulty[1] == "contains unknown":
        names = " or ".join(_fields(owner)) or "none"
        noun = "field" if path else "option"
        return BadParameterError(f"There is no {noun} {faulty[2][:100]!r}: use {names}.")
    if faulty:
        path, kind = f"{path}.{faulty[2]}", _fields(owner)[faulty[2]].type
    path = path.removeprefix(".") or "The JSON body"
    if " matching regex " in what and "expected" not in _extra(kind):
        return BadParameterError(f"{path} has characters that cannot be printed.")
    value = what.removeprefix("Invalid enum value")  # the value follows
    given = f", not{value[:100]}" if value != what else ""
    is_container = isinstance(_bare(kind), inspect.StructType | inspect.ListType)
    error_class = MalformedBodyError if is_container else BadParameterError
    return error_class(f"{path} must be {_expected(kind, limits)}{given}.")


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
            bare = next(one for one in map(_bare, bare.types) if isinstance(one, inspect.ListType))
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
