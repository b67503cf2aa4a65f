"""The pages for people: try the model, review what it was unsure of, read the API's description."""

import mimetypes
from pathlib import Path

import flask

from imagesieve.serving import openapi
from imagesieve.serving.app import current_service, json_response

# The pages' modules run only as this type, and some systems' tables call them plain text.
mimetypes.add_type("text/javascript", ".js")

# Swagger UI sets styles from its script; scripts come from this server alone, here as well.
_DOCS_SECURITY_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_PAGE, _HTML = "a page for people", "text/html"

# Pages hold no data: what they show, their scripts ask the API for, with the user's key.
blueprint = flask.Blueprint("pages", __name__)


@blueprint.get("/")
@openapi.operation("page", openapi.PAGES, _PAGE, openapi.TEXT, media_type=_HTML)
def home() -> str:
    """Try the model."""
    return flask.render_template("index.html", page="/")


@blueprint.get("/review")
@openapi.operation("review_page", openapi.PAGES, _PAGE, openapi.TEXT, media_type=_HTML)
def review() -> str:
    """Correct what the model was unsure of."""
    return flask.render_template("review.html", page="/review")


@blueprint.get("/docs")
@openapi.operation("docs_page", openapi.PAGES, _PAGE, openapi.TEXT, media_type=_HTML)
def docs() -> flask.Response:
    """Read this description."""
    response = flask.make_response(flask.render_template("docs.html"))
    response.headers["Content-Security-Policy"] = _DOCS_SECURITY_POLICY
    return response


@blueprint.get('/docs/<any("swagger-ui.css", "swagger-ui-bundle.js"):name>')
def docs_file(name: str) -> flask.Response:
    """Return a file of Swagger UI."""
    import flask_swagger_ui  # has the files; most services are never asked for them

    return flask.send_from_directory(Path(flask_swagger_ui.__file__).parent / "dist", name)


@blueprint.get("/openapi.json")
@openapi.operation("openapi", openapi.MONITORING, "OpenAPI 3.1", {"type": "object"})
def description() -> flask.Response:
    """Return this description."""
    url = flask.request.host_url.rstrip("/")
    return json_response(openapi.document(flask.current_app, current_service(), url))
