"""An API description with a bit of everything that such a document may hold."""

ERROR = {"description": "`bad-parameter`: an option is wrong; `missing-image`: `image` is missing"}
OPENAPI = {
    "openapi": "3.1.0",
    "info": {
        "title": "Image sorter",
        "version": "0.1.0",
        "description": "Judges images.\n\nErrors are told as `application/problem+json`.",
    },
    "tags": [
        {"name": "Judge", "description": "Images in, classes out."},
        {"name": "Correct", "description": "What the model got wrong."},
    ],
    "security": [{"bearer": ["predict"]}],
    "paths": {
        "/v1/predict": {
            "post": {
                "tags": ["Judge"],
                "summary": "Judge one image",
                "description": "Send it in any of these forms:\n\n- its bytes\n- a file\n- Base64",
                "x-curl": "curl --data-binary @image.jpg http://127.0.0.1:8133/v1/predict",
                "parameters": [
                    {"$ref": "#/components/parameters/TopK"},
                    {
                        "name": "threshold",
                        "in": "query",
                        "description": "below it, the fallback class is answered",
                        "schema": {"type": "number", "minimum": 0, "maximum": 1},
                    },
                ],
                "requestBody": {
                    "required": True,
                    "content": {
                        "image/*": {"schema": {"type": "string", "format": "binary"}},
                        "application/json": {
                            "schema": {
                                "type": "object",
                                "required": ["image"],
                                "properties": {
                                    "image": {"type": "string", "description": "Base64"},
                                    "data_id": {"type": "string", "maxLength": 128},
                                },
                            },
                            "example": {"image": "/9j/4AAQ…", "data_id": "shop-77/3"},
                        },
                    },
                },
                "responses": {
                    "200": {
                        "description": "what the model says",
                        "content": {
                            "application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}
                        },
                    },
                    "400": ERROR,
                    "413": {"description": "the image is too large"},
                    "503": {"description": "the server is busy; `Retry-After` says how long"},
                },
            }
        },
        "/v1/feedback": {
            "post": {
                "tags": ["Correct"],
                "summary": "Correct an image",
                "security": [{"bearer": ["feedback"]}],
                "responses": {"201": {"description": "it is stored"}, "400": ERROR},
            }
        },
        "/healthz": {
            "get": {
                "summary": "Tell whether the server is alive",
                "security": [],
                "responses": {"200": {"description": "it is"}},
            }
        },
    },
    "components": {
        "parameters": {
            "TopK": {
                "name": "top_k",
                "in": "query",
                "description": "how many classes to answer with",
                "schema": {"type": "integer", "minimum": 1, "maximum": 1000},
            }
        },
        "schemas": {
            "Answer": {
                "type": "object",
                "required": ["id", "label"],
                "properties": {
                    "id": {"type": "string", "format": "uuid"},
                    "label": {"type": "string", "enum": ["menu", "<b>not-menu</b>"]},
                    "image": {"$ref": "#/components/schemas/Image"},
                },
            },
            "Image": {
                "type": "object",
                "properties": {
                    "width": {"type": "integer", "description": "pixels"},
                    "thumbnail": {"$ref": "#/components/schemas/Image"},
                },
            },
        },
    },
}
