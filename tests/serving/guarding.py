"""Views behind the checks of access, and what their tests ask them."""

from pathlib import Path

import flask
from flask.testing import FlaskClient

from imagesieve.serving.access import VARIABLE, Access, Caller, Keyring, Scope, read_keys
from imagesieve.serving.app import Service, create_app, requires
from imagesieve.serving.model_manager import ModelManager

SHOP = "shop-key-0123456789"
DESK = "desk-key-0123456789"
BOSS = "boss#key;0123456789"
KEYS = f"""\
# who may do what
shop predict {SHOP}
desk predict,feedback {DESK}  # the people who correct
boss admin,feedback,predict {BOSS}
"""

VIEWS: dict[str, tuple[str, Scope | None]] = {
    "/predict": ("POST", Scope.PREDICT),
    "/model": ("GET", Scope.PREDICT),
    "/feedback": ("POST", Scope.FEEDBACK),
    "/feedback/one": ("DELETE", Scope.FEEDBACK),
    "/admin": ("POST", Scope.ADMIN),
    "/open": ("GET", None),
    "/open-post": ("POST", None),
}


def app_with(access: Access) -> flask.Flask:
    """Return the service's application with views that answer who asks; it has no model."""
    app = create_app(Service(ModelManager(Path("nowhere")), access=access))

    def tell() -> dict[str, object]:
        caller = flask.g.get("caller") or Caller(None, frozenset(), flask.request.remote_addr or "")
        access.take(caller, flask.request.args.get("n", 1, type=int) - 1)
        return {"name": caller.name, "scopes": sorted(caller.scopes), "address": caller.address}

    for path, (method, scope) in VIEWS.items():
        app.add_url_rule(path, path, requires(scope)(tell) if scope else tell, methods=[method])
    return app


def client_of(access: Access) -> FlaskClient:
    return app_with(access).test_client()


def ring(text: str = KEYS) -> Keyring:
    return read_keys(None, {VARIABLE: text.replace(";", "_")})


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def assert_refused(response, status: int, slug: str, *words: str) -> None:
    value = response.get_json(force=True)
    assert (response.status_code, value["type"]) == (status, f"/problems/{slug}"), value
    for word in words:
        assert word in value["detail"]


LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


def with_host(client: FlaskClient, host: str, **more: str):
    return client.get("/open", environ_overrides={"HTTP_HOST": host, **more})


def preflight(client: FlaskClient, origin: str):
    headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    return client.options("/predict", headers=headers)


def cors(response) -> dict[str, str]:
    return {k: v for k, v in response.headers.items() if k.startswith("Access-Control-")}
