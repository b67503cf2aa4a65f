"""Routes for corrections of predictions, and for images to review."""

import itertools

import flask
from msgspec import UNSET

from imagesieve.class_folders import is_class_name
from imagesieve.feedback import CORRECT, REJECT, UNDO, FeedbackEvent
from imagesieve.serving import openapi, schemas
from imagesieve.serving.access import Scope
from imagesieve.serving.app import current_service, json_response, requires
from imagesieve.serving.errors import (
    ImageNeededError,
    UnknownImageError,
    UnknownLabelError,
)
from imagesieve.serving.feedback.review import GONE, Corrections
from imagesieve.serving.feedback.store import Correction, to_jpeg
from imagesieve.serving.model_manager import listed
from imagesieve.serving.requests import read_correction, read_options

_UNDO = openapi.link("undo_correction", parameters={"sha256": "$response.body#/sha256"})
_LOOK = openapi.link("review_image", parameters={"sha256": "$response.body#/images/0/sha256"})

blueprint = flask.Blueprint("feedback", __name__)


@blueprint.post("/v1/feedback")
@requires(Scope.FEEDBACK)
@openapi.operation(
    "correct",
    openapi.FEEDBACK,
    "it is the same as before, or replaces it",
    schemas.Corrected,
    created="it is stored",
    links=_UNDO,
    body=openapi.correction_body(),
    example="""CURL --json '{"id": "PREDICTION-ID", "label": "CLASS"}' URL/v1/feedback""",
)
def correct() -> flask.Response:
    """Say what an image really is.

    By the id of a prediction or by the image's SHA-256 as long as the server has the image, or
    with the image itself. The next training learns from it.
    """
    service, corrections = current_service(), _corrections()
    with service.admission.place():  # it decodes: no more at once than predictions
        asked, encoded = read_correction(flask.request)
        label = None if asked.label is UNSET else asked.label
        if label is not None:
            _check_label(label)
        sha256, image = corrections.find(asked, encoded)
        now = corrections.store.in_force(sha256)
        if now is None or now.label != label:
            corrections.slow_down(flask.g.caller.share)
        event = FeedbackEvent(
            action=REJECT if asked.reject else CORRECT,
            sha256=sha256,
            label=label,
            reviewer=asked.reviewer or None,
            note=asked.note or None,
            caller=flask.g.caller.name,
            **(image.as_reviewed() if image else {}),
        )
        done = _record(event, encoded or corrections.recent.data(sha256))
    corrections.recent.note_corrected(sha256)
    return json_response(_corrected(sha256, done), 200 if done.before else 201)


@blueprint.delete("/v1/feedback/<string(length=64):sha256>")
@requires(Scope.FEEDBACK)
@openapi.operation(
    "undo_correction",
    openapi.FEEDBACK,
    "what is in force now",
    schemas.Corrected,
    query=schemas.Nothing,
    example="CURL -X DELETE URL/v1/feedback/SHA256-OF-THE-IMAGE",
)
def undo(sha256: str) -> flask.Response:
    """Take back the last correction of an image."""
    service, corrections = current_service(), _corrections()
    read_options(flask.request, schemas.Nothing)
    corrections.slow_down(flask.g.caller.share)
    event = FeedbackEvent(UNDO, sha256, caller=flask.g.caller.name)
    with service.admission.place():  # it may decode: no more at once than predictions
        done = _record(event, corrections.recent.data(sha256))
    if done.after is None:
        corrections.recent.note_undone(sha256)
    return json_response(_corrected(sha256, done))


@blueprint.get("/v1/review")
@requires(Scope.FEEDBACK)
@openapi.operation(
    "review",
    openapi.FEEDBACK,
    "the review queue",
    schemas.Review,
    links=_LOOK,
    query=schemas.ReviewOptions,
    example="CURL 'URL/v1/review?limit=5'",
)
def review_queue() -> flask.Response:
    """List the images that should be reviewed."""
    service, corrections = current_service(), _corrections()
    limit = read_options(flask.request, schemas.ReviewOptions).limit
    return json_response(corrections.review(service.models.get().classes, limit))


@blueprint.get("/v1/review/<string(length=64):sha256>/image")
@requires(Scope.FEEDBACK)
@openapi.operation(
    "review_image",
    openapi.FEEDBACK,
    "the image, encoded anew",
    openapi.BINARY,
    media_type="image/jpeg",
    query=schemas.Nothing,
    example="CURL -o image.jpg URL/v1/review/SHA256-OF-THE-IMAGE/image",
)
def image(sha256: str) -> flask.Response:
    """Return an image that should be reviewed."""
    read_options(flask.request, schemas.Nothing)
    data = _corrections().recent.data(sha256)
    # Never the bytes that were sent: an image may be a page or a script as well.
    with current_service().admission.place():
        jpeg = _corrections().store.image(sha256) if data is None else _to_jpeg(data)
    if jpeg is None:
        raise UnknownImageError(f"{GONE}.")
    inline = {"Content-Disposition": "inline"}
    return flask.Response(jpeg, mimetype="image/jpeg", headers=inline)


@blueprint.get("/v1/feedback/export")
@requires(Scope.ADMIN)
@openapi.operation(
    "export_corrections",
    openapi.FEEDBACK,
    "one JSON object a line",
    openapi.TEXT,
    media_type="application/x-ndjson",
    query=schemas.Nothing,
    example="CURL -o feedback.jsonl URL/v1/feedback/export",
)
def export() -> flask.Response:
    """Return the history of all corrections."""
    read_options(flask.request, schemas.Nothing)
    pages = _corrections().store.export()
    first = next(pages)  # an error is answered before the body begins
    attached = {"Content-Disposition": 'attachment; filename="feedback.jsonl"'}
    lines = itertools.chain([first], pages)
    return flask.Response(lines, mimetype="application/x-ndjson", headers=attached)


def _corrections() -> Corrections:
    return current_service().corrections  # type: ignore[return-value]  # or there are no routes


def _record(event: FeedbackEvent, data: bytes | None) -> Correction:
    store = _corrections().store
    try:
        done = store.record(event)
    except ImageNeededError:
        if data is None:
            raise
        # Encoded while others may correct; what is not an image is refused with its reason.
        done = store.record(event, _to_jpeg(data))
    if event.action == UNDO or done.before != done.after:
        current_service().metrics.note_correction(event.action)
    return done


def _to_jpeg(data: bytes) -> bytes:
    admission = current_service().admission
    return to_jpeg(data, admission.limits.images, admission.decoding())


def _check_label(label: str) -> None:
    classes = current_service().models.get().classes
    if label not in classes:
        raise UnknownLabelError(f"The model has no class {label[:100]!r}: use {listed(classes)}.")
    if not is_class_name(label):
        raise UnknownLabelError(f"The class {label!r} cannot be corrected to: rename it.")


def _corrected(sha256: str, done: Correction) -> schemas.Corrected:
    before, after = done
    return schemas.Corrected(
        sha256=sha256,
        label=after.label if after else None,
        rejected=after is not None and after.label is None,
        previous=before.label if before else None,
        stored=after.stored if after else None,
    )
