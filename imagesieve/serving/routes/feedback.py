"""The addresses where people tell the service what it got wrong, and find what to look at."""

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

import flask

from imagesieve.class_folders import is_class_name
from imagesieve.errors import UsageError
from imagesieve.feedback import CORRECT, REJECT, SENT, UNDO
from imagesieve.model.decisions import ARGMAX, CONFIDENT
from imagesieve.serving import errors, openapi, schemas
from imagesieve.serving.access.checks import take_tokens
from imagesieve.serving.access.keys import Scope
from imagesieve.serving.access.rates import RateLimit, TokenBuckets
from imagesieve.serving.errors import (
    BadParameterError,
    RateLimitedError,
    UnavailableError,
    UnknownImageError,
    UnknownLabelError,
)
from imagesieve.serving.feedback import review
from imagesieve.serving.feedback.image_store import KeptImages
from imagesieve.serving.feedback.jpegs import JpegMaker
from imagesieve.serving.feedback.recent import HeldImage, HeldImages
from imagesieve.serving.feedback.requests import (
    CorrectionRequest,
    is_sha256,
    read_correction,
    read_limit,
    refuse_options,
)
from imagesieve.serving.feedback.selection import Selection
from imagesieve.serving.feedback.store import Correction, FeedbackStore, Remark
from imagesieve.serving.limits import Admission
from imagesieve.serving.pipeline import PredictionResult
from imagesieve.serving.service import json_response, requires

# Of each caller: 240 a minute at most. A quick reviewer does less, a flood fills nothing.
PACE = RateLimit(rate=2.0, burst=120)

_MAX_NAMED = 50  # classes in a message
_CHUNK_BYTES = 65_536
_NOT_HELD = "The image is not held any more."

_UNDO_LINK = {
    "undo": {
        "operationId": "undo_correction",
        "parameters": {"sha256": "$response.body#/sha256"},
        "description": "take it back",
    }
}
_IMAGE_LINK = {
    "image": {
        "operationId": "review_image",
        "parameters": {"sha256": "$response.body#/images/0/sha256"},
        "description": "look at the first image",
    }
}

_log = logging.getLogger(__name__)


class Corrections:
    """The room: its views, and what the rest of the service needs of it."""

    def __init__(
        self,
        store: FeedbackStore,
        held: HeldImages,
        selection: Selection,
        classes: Callable[[], Sequence[str]],
        to_jpeg: JpegMaker,
        admission: Admission,
        *,
        kept: KeptImages | None = None,
        pace: RateLimit = PACE,
        count: Callable[[str], None] = lambda action: None,
    ) -> None:
        """Put the parts together; nothing is read or written before `open`.

        Args:
            store: of the corrections.
            held: images that can be corrected without being sent again.
            selection: tells which of them should be looked at.
            classes: gives those of the model in use, or raises what the caller is to hear.
            to_jpeg: what `store` uses too.
            admission: hands out the places that predictions take too.
            kept: the part of `held` on disk.
            pace: how many corrections each caller may make.
            count: called with the action of each correction that was written.
        """
        self._held = held
        self._store = store
        self._queue = review.ReviewQueue(held, store, selection)
        self._selection = selection
        self._classes = classes
        self._to_jpeg = to_jpeg
        self._admission = admission
        self._kept = kept
        self._buckets = TokenBuckets(pace)
        self._count = count

    def blueprint(self) -> flask.Blueprint:
        """Return the routes."""
        blueprint = flask.Blueprint("feedback", __name__)
        feedback, admin = requires(Scope.FEEDBACK), requires(Scope.ADMIN)
        blueprint.post("/v1/feedback")(feedback(self.correct))
        blueprint.delete("/v1/feedback/<sha256>")(feedback(self.undo))
        blueprint.get("/v1/feedback/export")(admin(self.export))
        blueprint.get("/v1/review")(feedback(self.review))
        blueprint.get("/v1/review/<sha256>/image")(feedback(self.image))
        return blueprint

    def open(self) -> None:
        """Read what earlier runs left. A disk that fails is said, and costs corrections alone."""
        try:
            self._store.open()
        except UnavailableError as error:
            _log.warning("Corrections cannot be stored for now. %s", error)
        if self._kept:
            self._kept.open()
            kept = [image.sha256 for image in self._kept.all()]
            for sha256 in self._store.corrected_among(kept):
                self._kept.remove(sha256)

    def note(self, image_id: str, judged: PredictionResult) -> bool:
        """Hold a judged image; tell whether it can be corrected by its id alone."""
        is_strict = judged.policy.kind == CONFIDENT
        return self._held.note(
            image_id,
            judged.data,
            judged.known.sha256,
            judged.prediction,
            judged.described["digest"],
            judged.described["name"],
            fallback_class=judged.policy.fallback_class if is_strict else None,
        )

    def close(self) -> None:
        """Write what waits to be kept."""
        if self._kept:
            self._kept.close()

    def check(self, described: Mapping[str, Any]) -> None:
        """Check that a model suits what was asked for.

        Args:
            described: the model, from `Predictor.describe`.

        Raises:
            UsageError: the class of interest is none of its classes.
        """
        wanted, classes = self._selection.class_of_interest, described["classes"]
        drops_nothing = described["decision_policy"]["kind"] == ARGMAX and wanted is None
        if self._selection.audit_share and drops_nothing:
            _log.warning(
                "The model's decision policy drops no image, so none is audited: name what is "
                "to be kept with --class-of-interest."
            )
        if wanted is not None and wanted not in classes:
            raise UsageError(
                f"--class-of-interest {wanted}: the model has no such class; it has "
                f"{_listed(classes)}."
            )
        for name in classes:
            if not is_class_name(name):
                _log.warning("Nothing can be corrected to %r: it is no folder's name.", name)

    @openapi.operation(
        "correct",
        openapi.FEEDBACK,
        {
            201: openapi.json_content("it is stored", schemas.Corrected, links=_UNDO_LINK),
            200: openapi.json_content(
                "it is what was said before, or instead of it", schemas.Corrected, links=_UNDO_LINK
            ),
        },
        body=openapi.correction_body(),
        errors=(
            errors.UnknownImageError,
            errors.UnknownLabelError,
            errors.SeveralImagesError,
            errors.FeedbackFullError,
            errors.FeedbackUnavailableError,
            errors.OverloadedError,
            *openapi.FORM_ERRORS,
            *openapi.IMAGE_ERRORS,
            *openapi.LOADING,
        ),
        example="""CURL --json '{"id": "PREDICTION-ID", "label": "CLASS"}' URL/v1/feedback""",
    )
    def correct(self) -> flask.Response:
        """Say what an image really is.

        By the id of a prediction or by the image's SHA-256 as long as the server has the image, or
        with the image itself. The next training learns from it.
        """
        with self._admission.place():  # it decodes: no more at once than predictions
            return self._correct()

    def _correct(self) -> flask.Response:
        asked = read_correction(flask.request, self._admission.limits)
        if asked.label is not None:
            self._check_label(asked.label)
        sha256, image = self._find(asked)
        data = asked.image or self._held.data(sha256)
        if not self._store.is_settled(sha256, asked.label):
            self._slow_down()
            if asked.reject and asked.image is not None:
                self._to_jpeg(asked.image)  # what is no image is told so
        remark = _remark(image, asked.reviewer, asked.note)
        done = self._store.correct(sha256, asked.label, remark, data)
        if done.is_changed:
            self._count(REJECT if done.is_rejected else CORRECT)
        self._held.note_settled(sha256)
        return json_response(_as_json(done), 201 if done.is_new else 200)

    @openapi.operation(
        "undo_correction",
        openapi.FEEDBACK,
        {200: openapi.json_content("what holds now", schemas.Corrected)},
        errors=(
            errors.UnknownImageError,
            errors.FeedbackFullError,
            errors.FeedbackUnavailableError,
            errors.OverloadedError,
            *openapi.OPTION_ERRORS,
            *openapi.IMAGE_ERRORS,
        ),
        example="CURL -X DELETE URL/v1/feedback/SHA256-OF-THE-IMAGE",
    )
    def undo(self, sha256: str) -> flask.Response:
        """Take back the last correction of an image."""
        refuse_options(flask.request, self._admission.limits)
        if not is_sha256(sha256):
            raise UnknownImageError("There is no correction of this image.")
        self._slow_down()
        with self._admission.place():  # it may decode: no more at once than predictions
            done = self._store.undo(sha256, _remark(None), self._held.data(sha256))
        self._count(UNDO)
        if done.label is None and not done.is_rejected:
            self._held.note_unsettled(sha256)
        return json_response(_as_json(done))

    @openapi.operation(
        "review",
        openapi.FEEDBACK,
        {200: openapi.json_content("the queue", schemas.Review, links=_IMAGE_LINK)},
        query=schemas.ReviewOptions,
        errors=(*openapi.OPTION_ERRORS, *openapi.LOADING),
        example="CURL 'URL/v1/review?limit=5'",
    )
    def review(self) -> flask.Response:
        """List the images that should be looked at."""
        found = self._queue.look(read_limit(flask.request, self._admission.limits))
        return json_response(
            {
                "images": [review.as_json(image) for image in found.images],
                "waiting": found.waiting,
                "corrected": found.corrected,
                "classes": list(self._classes()),
                "audit": found.audit.to_json() if found.audit else None,
            }
        )

    @openapi.operation(
        "review_image",
        openapi.FEEDBACK,
        {200: openapi.Content("the image, encoded anew", {"image/jpeg": openapi.BINARY})},
        errors=(
            errors.UnknownImageError,
            errors.FeedbackUnavailableError,
            errors.OverloadedError,
            *openapi.OPTION_ERRORS,
            *openapi.IMAGE_ERRORS,
        ),
        example="CURL -o image.jpg URL/v1/review/SHA256-OF-THE-IMAGE/image",
    )
    def image(self, sha256: str) -> flask.Response:
        """Return an image that should be looked at."""
        refuse_options(flask.request, self._admission.limits)
        if not is_sha256(sha256):
            raise UnknownImageError(_NOT_HELD)
        data = self._held.data(sha256)
        # Never the bytes that somebody sent: an image may be a page or a script as well.
        with self._admission.place():
            jpeg = self._to_jpeg(data) if data is not None else self._store.image(sha256)
        if jpeg is None:
            raise UnknownImageError(_NOT_HELD)
        response = flask.Response(jpeg, mimetype="image/jpeg")
        response.headers["Content-Disposition"] = "inline"
        return response

    @openapi.operation(
        "export_corrections",
        openapi.FEEDBACK,
        {200: openapi.Content("one JSON object a line", {"application/x-ndjson": openapi.TEXT})},
        errors=(*openapi.OPTION_ERRORS, errors.FeedbackUnavailableError),
        example="CURL -o feedback.jsonl URL/v1/feedback/export",
    )
    def export(self) -> flask.Response:
        """Return the journal of all corrections."""
        refuse_options(flask.request, self._admission.limits)
        file, num_bytes = self._store.export()
        response = flask.Response(_chunks(file, num_bytes), mimetype="application/x-ndjson")
        response.call_on_close(file.close)
        response.content_length = num_bytes
        response.headers["Content-Disposition"] = 'attachment; filename="feedback.jsonl"'
        return response

    def _check_label(self, label: str) -> None:
        classes = self._classes()
        if label not in classes:
            raise UnknownLabelError(
                f"The model has no class {label[:100]!r}: use {_listed(classes)}."
            )
        if not is_class_name(label):
            raise UnknownLabelError(f"The class {label!r} cannot be corrected to: rename it.")

    def _find(self, asked: CorrectionRequest) -> tuple[str, HeldImage | None]:
        """Give the SHA-256 of the image that is meant, and what is held of it."""
        by_id = self._held.by_id(asked.id) if asked.id is not None else None
        if asked.image is None and asked.id is not None:
            if by_id is None:
                raise UnknownImageError("The image is not held any more: send it again.")
            return by_id.sha256, by_id
        sha256 = asked.sha256 or ""
        if asked.image is not None:
            sha256 = hashlib.sha256(asked.image).hexdigest()
            named = (asked.sha256, by_id.sha256 if by_id else None)
            if any(name not in (None, sha256) for name in named):
                raise BadParameterError("The image is another one than id or sha256 say.")
        return sha256, self._held.by_sha256(sha256)

    def _slow_down(self) -> None:
        seconds = take_tokens(self._buckets, flask.g.caller)
        if seconds:
            raise RateLimitedError(
                f"Too many corrections in a short time: go on in {seconds} s.", seconds
            )


def _remark(
    image: HeldImage | None, reviewer: str | None = None, note: str | None = None
) -> Remark:
    caller = flask.g.caller.name
    if image is None:
        return Remark(reason=SENT, reviewer=reviewer, caller=caller, note=note)
    prediction = image.prediction
    return Remark(
        predicted={
            "label": prediction.label,
            "probability": prediction.probability,
            "decision": prediction.decision,
        },
        model=image.digest,
        reason=image.reason,
        reviewer=reviewer,
        caller=caller,
        note=note,
    )


def _as_json(done: Correction) -> dict[str, object]:
    return {
        "sha256": done.sha256,
        "label": done.label,
        "rejected": done.is_rejected,
        "previous": done.previous,
        "stored": done.stored,
    }


def _listed(classes: Sequence[str]) -> str:
    names = ", ".join(classes[:_MAX_NAMED])
    return names if len(classes) <= _MAX_NAMED else f"{names} and {len(classes) - _MAX_NAMED} more"


def _chunks(file: BinaryIO, num_bytes: int) -> Iterator[bytes]:
    """Give the start of a file that others may be adding to."""
    while num_bytes > 0 and (chunk := file.read(min(_CHUNK_BYTES, num_bytes))):
        num_bytes -= len(chunk)
        yield chunk
