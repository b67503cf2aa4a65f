"""What the API answers, as JSON Schemas."""

from imagesieve import images
from imagesieve.model.decisions import KINDS
from imagesieve.serving import legacy
from imagesieve.serving.answers import UNSURE
from imagesieve.serving.errors import PROBLEMS, ClientGoneError
from imagesieve.serving.feedback.recent import REASONS
from imagesieve.serving.oip_requests import BYTES, DECISION, LABEL, PROBABILITIES
from imagesieve.serving.openapi.words import (
    DIGEST,
    SHA256,
    Facts,
    Json,
    answered,
    anything,
    array,
    flag,
    number,
    one_of,
    or_null,
    ref,
    text,
    whole,
)
from imagesieve.serving.routes import oip

_SHARE = number(minimum=0, maximum=1)
_COUNT = whole(minimum=0)
_TIME = text("ISO 8601, UTC")


def schemas(facts: Facts) -> Json:
    """Give the schemas by name."""
    return {
        "ClassName": one_of(facts.classes, "a class of the model"),
        "Decision": one_of(facts.decisions, "a class, or the fallback class of the policy"),
        "Problem": _problem(),
        "Status": answered({"status": text(enum=["ok", "ready"])}),
        **_judging(facts),
        **_models(),
        **_correcting(),
        **_open_inference(facts),
        **_first_generation(),
    }


def _problem() -> Json:
    rows = [row for kind, row in PROBLEMS.items() if kind is not ClientGoneError]  # nobody hears it
    slugs = sorted({f"/problems/{row.slug}" for row in rows})
    return answered(
        {
            "type": text("which kind of problem", enum=slugs),
            "title": text("the same for each kind"),
            "status": whole("of HTTP", minimum=400, maximum=599),
            "detail": text("what was wrong this time"),
            "instance": text("the request, as it stands in the server's log", pattern="^urn:"),
            "retry_after": whole("seconds to wait before trying again", minimum=1),
        },
        "retry_after",
        description="a problem document, RFC 9457",
    )


def _judging(facts: Facts) -> Json:
    each: Json = {"additionalProperties": _SHARE}
    if facts.classes:
        each = {
            "properties": dict.fromkeys(facts.classes, _SHARE),
            "additionalProperties": False,
            "minProperties": 1,
        }
    return {
        "Probabilities": {
            "type": "object",
            "description": "class -> probability; those of all classes sum to 1",
            **each,
        },
        "DecisionPolicy": answered(
            {"kind": text(enum=list(KINDS)), "min_confidence": _SHARE, "fallback_class": text()},
            "min_confidence",
            "fallback_class",
            description="how a decision is made from the probabilities",
        ),
        "Answer": _answer(),
        "BatchAnswer": answered(
            {
                "id": text("of this request", format="uuid"),
                "results": array(
                    {"anyOf": [ref("Answer"), ref("Failure")]}, "in the order sent", minItems=1
                ),
                "ok": whole("how many were judged", minimum=0),
                "failed": whole("how many were not", minimum=0),
            }
        ),
        "Failure": answered({"error": ref("Problem"), "data_id": ref("DataId")}, "data_id"),
    }


def _answer() -> Json:
    image = {
        "format": text(enum=list(images.FORMATS)),
        "width": whole("pixels, upright", minimum=1),
        "height": whole("pixels, upright", minimum=1),
        "orientation": whole("EXIF's, which was applied", minimum=1, maximum=8),
        "frames": whole("how many were looked at", minimum=1),
        "sha256": text("of the encoded image", pattern=SHA256),
        "truncated": flag("whether it ends early"),
    }
    model = {"name": text(), "digest": text(pattern=DIGEST), "engine": text()}
    stages = dict.fromkeys(("queue", "decode", "infer", "total"), number(minimum=0))
    return answered(
        {
            "id": text("of this prediction: a correction may name it", minLength=1),
            "data_id": ref("DataId"),
            "label": ref("ClassName"),
            "probability": number("of the label", minimum=0, maximum=1),
            "probabilities": ref("Probabilities"),
            "decision": ref("Decision"),
            "decision_policy": ref("DecisionPolicy"),
            "flags": array(text(enum=[UNSURE]), "`unsure`: the decision is not the label"),
            "model": answered(model),
            "image": answered(image),
            "timing_ms": answered(stages),
            "cached": flag("whether these bytes were judged before, and the model not asked"),
            "held": flag("whether the image can be corrected by its id alone"),
        },
        "data_id",
    )


def _models() -> Json:
    digest = text("SHA-256 of the version's manifest", pattern=DIGEST)
    previous = {"name": text(), "digest": digest}
    return {
        "Model": answered(
            {
                "name": text("of the version's folder"),
                "digest": digest,
                "created": _TIME,
                "classes": array(text(), "in the order of the model's answers", minItems=1),
                "backbone": text(),
                "image_size": answered({"height": whole(minimum=1), "width": whole(minimum=1)}),
                "pixel_contract": text("how images become pixels"),
                "engine": text("what runs the model, and in which precision"),
                "streams": whole("images judged at once", minimum=1),
                "decision_policy": ref("DecisionPolicy"),
                "temperature": number("that calibrates the probabilities"),
                "metrics": anything("what testing it gave"),
            }
        ),
        "Models": answered({"models": array(ref("ListedModel"))}),
        "ListedModel": answered(
            {
                "name": text(),
                "digest": or_null(digest),
                "current": flag("whether it is served now"),
                "created": or_null(_TIME),
                "classes": array(text()),
                "damaged": flag("there only where it is true"),
            },
            "damaged",
        ),
        "ModelChange": answered(
            {
                "model": ref("Model"),
                "previous": {
                    "description": "what a rollback would bring back",
                    **or_null(answered(previous)),
                },
                "changed": flag("whether another version was served before"),
            }
        ),
    }


def _correcting() -> Json:
    audit = {
        "share": _SHARE,
        **dict.fromkeys(("kept", "reviewed", "missed"), _COUNT),
        "missed_share": or_null(_SHARE),
        "interval": or_null(array(_SHARE, "95 %", minItems=2, maxItems=2)),
    }
    # A model with other classes may have judged these.
    image = {
        "sha256": text(pattern=SHA256),
        "id": text("of its last prediction"),
        "label": text(),
        "probability": _SHARE,
        "probabilities": {"type": "object", "additionalProperties": _SHARE},
        "decision": text(),
        "reason": text("why it should be looked at", enum=list(REASONS)),
        "created": _TIME,
    }
    return {
        "Corrected": answered(
            {
                "sha256": text(pattern=SHA256),
                "label": or_null(text("what holds now")),
                "rejected": flag("whether it belongs to no class"),
                "previous": or_null(text("the label that held before")),
                "stored": or_null(text("where the image lies in the feedback folder")),
            }
        ),
        "Review": answered(
            {
                "images": array(answered(image), "the first ones to look at come first"),
                "waiting": whole("how many ask for a look", minimum=0),
                "corrected": whole("how many were corrected or rejected", minimum=0),
                "classes": array(text(), "that an image can be corrected to"),
                "audit": {
                    "description": "what the filter misses, as far as the audit tells",
                    **or_null(answered(audit)),
                },
            }
        ),
    }


def _open_inference(facts: Facts) -> Json:
    about = {"name": text(), "datatype": text(), "shape": array(whole(), "-1: any number")}
    return {
        "OipError": answered({"error": text("what was wrong")}),
        "OipServer": answered(
            {"name": text(), "version": text(), "extensions": array(text(), maxItems=0)}
        ),
        "OipModel": answered(
            {
                "name": text(),
                "versions": array(text(pattern=DIGEST)),
                "platform": text(),
                "inputs": array(answered(about)),
                "outputs": array(answered(about)),
                "classes": array(ref("ClassName"), f"in the order of `{PROBABILITIES}`"),
            }
        ),
        "OipModelReady": answered({"name": text(), "ready": flag()}),
        "OipAnswer": answered(
            {
                "model_name": text("as it was asked for"),
                "model_version": text(pattern=DIGEST),
                "id": text("of the request, as it was sent"),
                "outputs": array(ref("OipOutput"), minItems=1),
            },
            "id",
        ),
        "OipOutput": {
            "oneOf": [
                _tensor(LABEL, BYTES, ref("ClassName")),
                _tensor(PROBABILITIES, oip.FLOAT, _SHARE, max(1, len(facts.classes))),
                _tensor(DECISION, BYTES, ref("Decision")),
            ]
        },
    }


def _tensor(name: str, datatype: str, items: Json, row: int = 0) -> Json:
    shape = "images, classes" if row else "images"
    num_sizes = 2 if row else 1
    return answered(
        {
            "name": text(const=name),
            "datatype": text(const=datatype),
            "shape": array(whole(minimum=1), shape, minItems=num_sizes, maxItems=num_sizes),
            "data": array(items, "row by row" if row else "", minItems=max(1, row)),
        }
    )


def _first_generation() -> Json:
    failure = answered(
        {
            "code": text(const=legacy.FAILURE),
            "message": text("what was wrong; its first part is Chinese"),
        }
    )
    success = answered(
        {
            "code": text(const=legacy.SUCCESS),
            "message": text(),
            "predictedClass": ref("Decision"),
            "probability": text("a number as text", pattern=r"^[0-9.e-]+$"),
        }
    )
    return {"FirstFailure": failure, "FirstAnswer": {"oneOf": [success, failure]}}
