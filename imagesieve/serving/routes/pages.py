"""The pages for people: try the model, review what it was unsure of, read about the API."""

import functools
import mimetypes
from collections.abc import Mapping
from types import MappingProxyType

import flask

from imagesieve.serving.routing import Route

TEMPLATES: Mapping[str, str] = MappingProxyType(
    {"/": "index.html", "/review": "review.html", "/docs": "docs.html"}
)

# The pages' modules run only as this type, and some systems' tables call them plain text.
mimetypes.add_type("text/javascript", ".js")


class Pages:
    """Gives pages that hold no data: what they show, their scripts ask the API for, key and all."""

    def routes(self) -> list[Route]:
        """Give the addresses of the pages; they are open to everybody."""
        return [Route(path, "GET", functools.partial(_render, path)) for path in TEMPLATES]


def _render(path: str) -> flask.Response:
    return flask.Response(flask.render_template(TEMPLATES[path], page=path), mimetype="text/html")
