"""A small Flask application behind the checks of access, and what its tests ask it."""

import flask
import msgspec
from flask.testing import FlaskClient

from imagesieve.serving import errors
from imagesieve.serving.access import keys
from imagesieve.serving.access.checks import Access, Caller
from imagesieve.serving.access.keys import Keyring, Scope, read_keys

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
    """Return an application that uses the checks as the service does."""
    app = flask.Flask(__name__)

    def check() -> flask.Response | None:
        answer = access.preflight(flask.request)
        if answer is None:
            access.check_site(flask.request)
            scope = VIEWS.get(flask.request.path, ("", None))[1]
            anyone = Caller(None, frozenset(), flask.request.remote_addr or "")
            flask.g.caller = access.identify(flask.request, scope) if scope else anyone
        return answer

    def tell() -> dict[str, object]:
        caller: Caller = flask.g.caller
        access.take(caller, flask.request.args.get("n", 1, type=int) - 1)
        return {"name": caller.name, "scopes": sorted(caller.scopes), "address": caller.address}

    def refuse(error: errors.ServiceError) -> flask.Response:
        problem = errors.problem_for(error)
        text = msgspec.json.encode(errors.document(problem, str(error), "x"))
        answer = flask.Response(text, problem.status, dict(error.headers))
        if isinstance(error, errors.RateLimitedError):
            answer.headers["Retry-After"] = str(error.retry_after)
        return answer

    def finish(response: flask.Response) -> flask.Response:
        response.headers.update(access.cors_headers(flask.request))
        return response

    for path, (method, _) in VIEWS.items():
        app.add_url_rule(path, path, tell, methods=[method], provide_automatic_options=False)
    app.before_request(check)
    app.after_request(finish)
    app.register_error_handler(errors.ServiceError, refuse)
    return app


def client_of(access: Access) -> FlaskClient:
    return app_with(access).test_client()


def ring(text: str = KEYS) -> Keyring:
    return read_keys(None, {keys.VARIABLE: text.replace(";", "_")})


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
