"""The pages for people: try the model, review what it was unsure of, read about the API."""

import functools
import mimetypes
from collections.abc import Mapping
from types import MappingProxyType

import flask

# Pages hold no data: what they show, their scripts ask the API for, with the user's key.
TEMPLATES: Mapping[str, str] = MappingProxyType(
    {"/": "index.html", "/review": "review.html", "/docs": "docs.html"}
)

# The pages' modules run only as this type, and some systems' tables call them plain text.
mimetypes.add_type("text/javascript", ".js")

blueprint = flask.Blueprint("pages", __name__)


def _render(path: str) -> flask.Response:
    return flask.Response(flask.render_template(TEMPLATES[path], page=path), mimetype="text/html")


for _path, _template in TEMPLATES.items():
    blueprint.add_url_rule(
        _path, _template.removesuffix(".html"), functools.partial(_render, _path)
    )
