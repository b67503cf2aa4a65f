"""The pages for people: try the model, review what it was unsure of."""

import mimetypes

import flask

from imagesieve.serving import openapi

# The pages' modules run only as this type, and some systems' tables call them plain text.
mimetypes.add_type("text/javascript", ".js")

_PAGE = {200: openapi.Content("a page for people", {"text/html": openapi.TEXT})}

# Pages hold no data: what they show, their scripts ask the API for, with the user's key.
blueprint = flask.Blueprint("pages", __name__)


@blueprint.get("/")
@openapi.operation("page", openapi.PAGES, _PAGE)
def home() -> str:
    """Try the model."""
    return flask.render_template("index.html", page="/")


@blueprint.get("/review")
@openapi.operation("review_page", openapi.PAGES, _PAGE)
def review() -> str:
    """Correct what the model was unsure of."""
    return flask.render_template("review.html", page="/review")
