"""The API's description: /openapi.json for programs, /docs for people, through Swagger UI."""

from pathlib import Path

import flask

from imagesieve.serving import openapi
from imagesieve.serving.service import current_service, json_response

# Swagger UI sets styles from its script; scripts come from this server alone, here as well.
CONTENT_SECURITY_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

blueprint = flask.Blueprint("docs", __name__)


@blueprint.get("/openapi.json")
@openapi.operation(
    "openapi",
    openapi.MONITORING,
    {200: openapi.json_content("OpenAPI 3.1", {"type": "object", "required": ["openapi"]})},
)
def description() -> flask.Response:
    """Return this description."""
    url = flask.request.host_url.rstrip("/")
    return json_response(openapi.document(flask.current_app, current_service(), url))


@blueprint.get("/docs")
@openapi.operation(
    "docs_page",
    openapi.PAGES,
    {200: openapi.Content("a page for people", {"text/html": openapi.TEXT})},
)
def page() -> flask.Response:
    """Read this description."""
    response = flask.make_response(flask.render_template("docs.html"))
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    return response


@blueprint.get('/docs/<any("swagger-ui.css", "swagger-ui-bundle.js"):name>')
def file(name: str) -> flask.Response:
    """Return a file of Swagger UI."""
    import flask_swagger_ui  # has the files; most services are never asked for them

    return flask.send_from_directory(Path(flask_swagger_ui.__file__).parent / "dist", name)
