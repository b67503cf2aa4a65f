"""What schemathesis needs to try the API: real images, and what OpenAPI cannot say."""

import base64
import sys
from pathlib import Path
from typing import Any

import schemathesis
from hypothesis import strategies
from schemathesis import Case, HookContext

sys.path.append(str(Path(__file__).resolve().parents[1]))

from painted import COLOURS, encode, paint

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP")

images = {
    name: strategies.sampled_from(
        [encode(paint(colour, size=(16, 16)), name) for colour in COLOURS.values()]
    )
    for name in FORMATS
}
any_image = strategies.one_of(*images.values())

# It would make up bytes and Base64 that no decoder takes, and never see an answer.
for name, some in images.items():
    schemathesis.openapi.media_type(f"image/{name.lower()}", some)
schemathesis.openapi.media_type("application/octet-stream", any_image)
schemathesis.openapi.format("binary", any_image)
schemathesis.openapi.format("byte", any_image.map(lambda data: base64.b64encode(data).decode()))


@schemathesis.hook
def filter_case(_context: HookContext, case: Case) -> bool:
    """Leave out forms whose only fault is that a text was made of another type.

    A form has nothing but texts: what was meant as a number arrives as its digits.
    """
    if case.media_type != "multipart/form-data" or case.meta is None:
        return True
    mutations = getattr(case.meta.phase.data, "mutations", ())
    return not any(
        mutation.operator == "change_type"
        and mutation.parameter_location.value == "body"
        and mutation.path
        for mutation in mutations
    )


@schemathesis.hook
def before_call(_context: HookContext, case: Case, _options: dict[str, Any]) -> None:
    """Keep two promises that OpenAPI has no words for, where a request is meant to be right."""
    body = case.body
    if not isinstance(body, dict) or (case.meta and not case.meta.generation.mode.is_positive):
        return
    # An option stands in the query or in the body, not in both.
    for name in set(case.query or ()) & set(body):
        del case.query[name]
    # The shape of a tensor agrees with its data.
    for tensor in body.get("inputs", ()):
        tensor["shape"][0] = len(tensor["data"])
