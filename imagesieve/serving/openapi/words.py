"""The words that the API's description is written in, and what it has to know of the service."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from imagesieve.serving.limits import ServingLimits

Json = dict[str, Any]

SHA256 = "^[0-9a-f]{64}$"
DIGEST = "^sha256:[0-9a-f]{64}$"
# No control characters; a note may have line breaks and tabs.
PRINTABLE = r"^[^\x00-\x1f\x7f-\x9f]*$"
PRINTABLE_LINES = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*$"


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the description has to know of the service that it describes.

    Attributes:
        limits: of requests.
        has_keys: whether callers need a key.
        takes_urls: whether images are fetched from addresses.
        address: of the service, for examples, without a slash at its end.
        classes: of the model in use; empty while it loads.
        decisions: all that may be answered; empty while it loads.
        model: the name of the model in use; None while it loads.
    """

    limits: ServingLimits
    has_keys: bool
    takes_urls: bool
    address: str
    classes: Sequence[str] = ()
    decisions: Sequence[str] = ()
    model: str | None = None


def ref(name: str, kind: str = "schemas") -> Json:
    """Refer to a component of the document."""
    return {"$ref": f"#/components/{kind}/{name}"}


def text(description: str = "", **more: object) -> Json:
    """Describe a text."""
    return _described(description, {"type": "string", **more})


def number(description: str = "", **more: object) -> Json:
    """Describe a number."""
    return _described(description, {"type": "number", **more})


def whole(description: str = "", **more: object) -> Json:
    """Describe a whole number."""
    return _described(description, {"type": "integer", **more})


def flag(description: str = "", **more: object) -> Json:
    """Describe a boolean."""
    return _described(description, {"type": "boolean", **more})


def array(items: Json, description: str = "", **more: object) -> Json:
    """Describe a list."""
    return _described(description, {"type": "array", "items": items, **more})


def one_of(names: Sequence[str], description: str = "") -> Json:
    """Describe one of some texts; any text where they are not known yet."""
    return text(description, **({"enum": list(names)} if names else {}))


def anything(description: str = "") -> Json:
    """Describe an object that may hold anything."""
    return _described(description, {"type": "object"})


def answered(properties: Json, *optional: str, description: str = "") -> Json:
    """Describe an object that is answered; all but the optional properties are there.

    Later versions may answer more of them.
    """
    required = [name for name in properties if name not in optional]
    value = {"type": "object", "required": required, "properties": properties}
    return _described(description, value)


def sent(properties: Json, *required: str, description: str = "") -> Json:
    """Describe an object that is sent; nothing else may be in it."""
    value: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    return _described(description, {**value, **({"required": list(required)} if required else {})})


def or_null(schema: Json) -> Json:
    """Describe a value that may be null."""
    if "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]}


def content(media_type: str, schema: Json, **more: object) -> Json:
    """Describe a body in one form."""
    return {media_type: {"schema": schema, **more}}


def _described(description: str, schema: Mapping[str, object]) -> Json:
    return {**({"description": description} if description else {}), **schema}
