"""What the API takes: parameters, and bodies in each of their forms."""

from collections.abc import Mapping

from imagesieve.serving.feedback.requests import (
    DEFAULT_REVIEW,
    IMAGE_FIELD,
    MAX_ID_CHARS,
    MAX_NOTE_CHARS,
    MAX_REVIEW,
    MAX_REVIEWER_CHARS,
)
from imagesieve.serving.forms import JSON, LEGACY_FIELD, MULTIPART, TEXT_FIELDS, URLENCODED
from imagesieve.serving.oip_requests import BYTES, INPUT, MAX_REQUEST_ID_CHARS, OUTPUTS
from imagesieve.serving.openapi.words import (
    PRINTABLE,
    PRINTABLE_LINES,
    SHA256,
    Facts,
    Json,
    anything,
    array,
    content,
    flag,
    number,
    one_of,
    ref,
    sent,
    text,
    whole,
)
from imagesieve.serving.predict_options import MAX_DATA_ID_CHARS, MAX_TOP_K
from imagesieve.serving.requests import FILE_FIELDS, LIST_FIELD, PREDICT_OPTIONS, URL_FIELD
from imagesieve.serving.routes import oip

_OPTIONS: Mapping[str, str] = {
    "data_id": "DataId",
    "top_k": "TopK",
    "threshold": "Threshold",
    "frames": "Frames",
    "label": "ClassName",
}
_BATCH_OPTIONS = tuple(name for name in PREDICT_OPTIONS if name != "data_id")
_BYTES: Json = {"type": "string", "format": "binary", "contentMediaType": "image/*"}
_BASE64: Json = {
    "description": "the image as Base64; a `data:` prefix, line breaks, the URL-safe alphabet "
    "and missing padding are taken too",
    "format": "byte",
    "minLength": 1,
}
_FILE = {"description": "the image, as a file", **_BYTES}


def schemas(facts: Facts) -> Json:
    """Give the schemas of what is sent, by name."""
    return {
        **_option_schemas(facts),
        "Base64": text(**_BASE64, contentEncoding="base64", contentMediaType="image/*"),
        # In a form, a contentEncoding would make it a part of bytes.
        "Base64Field": text(**_BASE64),
        "Activation": sent(
            {
                "version": text("a folder's name, or `sha256:` and a digest", minLength=1),
                "allow_other_classes": flag(
                    "take a version whose classes differ from those served", default=False
                ),
            },
            "version",
        ),
        "Nothing": sent({}, description="an empty object"),
        **_correction_schemas(),
        **_oip_schemas(facts),
    }


def parameters(facts: Facts) -> Json:
    """Give the parameters by name."""
    options = {
        name: {"name": name, "in": "query", "schema": ref(schema)}
        for name, schema in _OPTIONS.items()
    }
    return {
        **options,
        "limit": {
            "name": "limit",
            "in": "query",
            "description": "how many images to give at most",
            "schema": whole(minimum=1, maximum=MAX_REVIEW, default=DEFAULT_REVIEW),
        },
        "sha256": _in_path("sha256", "of the encoded image", text(pattern=SHA256)),
        "name": _in_path(
            "name",
            f"`{oip.ALIAS}`, or the name of the version that is served",
            one_of([oip.ALIAS, facts.model] if facts.model else ()),
        ),
        LEGACY_FIELD: {
            "name": LEGACY_FIELD,
            "in": "query",
            "description": "the image as Base64, where the body has none",
            "schema": text(),
        },
    }


def bodies(facts: Facts) -> Json:
    """Give the bodies by name."""
    # Without a type: whatever cannot be read is told in the answer, as a missing field is.
    legacy_form: Json = {"properties": {LEGACY_FIELD: text("the image as Base64")}}
    return {
        "Image": _body(
            "exactly one image, in any of these forms; options here or in the query",
            _image_forms(facts, PREDICT_OPTIONS),
        ),
        "ImageToExplain": _body(
            "exactly one image, in any of these forms; the option here or in the query",
            _image_forms(facts, ("label",)),
        ),
        "Batch": _body("one image or more", _batch_forms(facts)),
        "LegacyForm": {
            "description": "other fields are ignored",
            "required": False,
            "content": content(URLENCODED, legacy_form) | content(MULTIPART, legacy_form),
        },
        "Correction": _body(
            "which image (`id` or `sha256`, or the image itself), and what it is of (`label`, "
            "or `reject`)",
            content(JSON, ref("Correction"), example={"id": "<id of a prediction>", "reject": True})
            | content(MULTIPART, ref("CorrectionWithImage")),
        ),
        "Nothing": {
            "description": "none, or an empty object",
            "required": False,
            "content": content(JSON, ref("Nothing")),
        },
        "Activation": _body("which version", content(JSON, ref("Activation"))),
        "Inference": _body("one tensor of images", content(JSON, ref("OipRequest"))),
    }


def _in_path(name: str, description: str, schema: Json) -> Json:
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": schema,
    }


def _body(description: str, forms: Json) -> Json:
    return {"description": description, "required": True, "content": forms}


def _option_schemas(facts: Facts) -> Json:
    return {
        "DataId": text(
            "your own name for the image, given back in the answer",
            minLength=1,
            maxLength=MAX_DATA_ID_CHARS,
            pattern=PRINTABLE,
        ),
        "TopK": whole(
            "how many classes to answer with, the most probable first (all)",
            minimum=1,
            maximum=MAX_TOP_K,
        ),
        "Threshold": number(
            "below this probability the fallback class is answered (as the model says)",
            minimum=0,
            maximum=1,
        ),
        "Frames": whole(
            "how many frames of an animation to look at; the riskiest of them counts",
            minimum=1,
            maximum=facts.limits.max_frames,
            default=1,
        ),
    }


def _image_forms(facts: Facts, option_names: tuple[str, ...]) -> Json:
    options = {name: ref(_OPTIONS[name]) for name in option_names}
    texts = dict.fromkeys(TEXT_FIELDS, ref("Base64Field"))
    others = ", ".join(f"`{name}`" for name in FILE_FIELDS if name != "image")
    file = {**_FILE, "description": f"the image, as a file; its field may also be named {others}"}
    return {
        **content("image/*", _BYTES),
        **content("application/octet-stream", _BYTES),
        **content(MULTIPART, sent({"image": file, **options}, "image")),
        **content(URLENCODED, _exactly_one({**texts, **_url(facts)}, options)),
        **content(JSON, _exactly_one({"image": ref("Base64"), **_url(facts)}, options)),
    }


def _url(facts: Facts) -> Json:
    return {URL_FIELD: text("the address of the image", format="uri")} if facts.takes_urls else {}


def _batch_forms(facts: Facts) -> Json:
    most = facts.limits.max_batch_images
    options = {name: ref(_OPTIONS[name]) for name in _BATCH_OPTIONS}
    image = {"image": text("the image as Base64"), **_url(facts)}
    item = _exactly_one(image, {"data_id": ref("DataId")})
    files = array(_FILE, "the images, as files of one field", minItems=1, maxItems=most)
    images = array(item, "the images", minItems=1, maxItems=most)
    return {
        **content(MULTIPART, sent({"image": files, **options}, "image")),
        **content(JSON, sent({LIST_FIELD: images, **options}, LIST_FIELD)),
    }


def _exactly_one(sources: Json, others: Json) -> Json:
    """Describe an object with one of the sources, and with any of the others."""
    if len(sources) == 1:
        return sent({**sources, **others}, *sources)
    return {**sent({**sources, **others}), "oneOf": [{"required": [name]} for name in sources]}


def _correction_schemas() -> Json:
    label, names = ref("ClassName"), ("id", "sha256")
    remarks = {
        "note": text("your words", maxLength=MAX_NOTE_CHARS, pattern=PRINTABLE_LINES),
        "reviewer": text("your name", maxLength=MAX_REVIEWER_CHARS, pattern=PRINTABLE),
    }
    by_name = sent(
        {
            "id": text("of the prediction", minLength=1, maxLength=MAX_ID_CHARS),
            "sha256": text("of the encoded image", pattern="^[0-9a-fA-F]{64}$"),
            "label": label,
            "reject": flag("true: it belongs to no class; keep it out of the training"),
            **remarks,
        }
    )
    verdict = [
        {"required": ["label"], "properties": {"reject": {"const": False}}},
        {"required": ["reject"], "properties": {"reject": {"const": True}, "label": False}},
    ]
    either = [{"oneOf": [{"required": [name]} for name in names]}, {"oneOf": verdict}]
    with_image = sent(
        {IMAGE_FIELD: _FILE, "label": label, **remarks},
        *(IMAGE_FIELD, "label"),
        description="A field `reject` with the text `true` may stand instead of `label`.",
    )
    return {"Correction": {**by_name, "allOf": either}, "CorrectionWithImage": with_image}


def _oip_schemas(facts: Facts) -> Json:
    most = facts.limits.max_batch_images
    ignored = {"parameters": anything("none has a meaning here")}
    size = whole("how many images", minimum=1, maximum=most)
    shape = {
        "type": "array",
        "description": "[n] or [n, 1], as many as there are texts in `data`",
        "prefixItems": [size, whole(const=1)],
        "minItems": 1,
        "maxItems": 2,
    }
    row = array(ref("Base64"), minItems=1, maxItems=1)
    tensor = sent(
        {
            "name": text(const=INPUT),
            "shape": shape,
            "datatype": text(const=BYTES),
            "data": array({"anyOf": [ref("Base64"), row]}, minItems=1, maxItems=most),
            **ignored,
        },
        *("name", "shape", "datatype", "data"),
    )
    output = sent({"name": text(enum=list(OUTPUTS)), **ignored}, "name")
    return {
        "OipRequest": sent(
            {
                "id": text("given back in the answer", maxLength=MAX_REQUEST_ID_CHARS),
                "inputs": array(tensor, minItems=1, maxItems=1),
                "outputs": array(output, "what to answer (all)", maxItems=len(OUTPUTS)),
                **ignored,
            },
            "inputs",
        )
    }
