"""EdgeFlow Cloud: the web application."""

import flask_swagger_ui
import structlog
from flask import Flask, Response, send_from_directory
from flask_jwt_extended import JWTManager
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.middleware.proxy_fix import ProxyFix

from app import db, limits, rooms
from app.api import PREFIX, Api, describe_filter, error_response
from app.edge_nodes.editor.gate import EditorGate
from app.errors import AppError, ServiceUnavailable
from app.framework import MAX_BODY_BYTES, EdgeFlow
from app.health import blp as health
from app.observability import configure_logging, observe_requests
from app.tunnel.routes import mount
from app.watch import watcher
from config.plans import plans
from config.settings import Settings, settings

log = structlog.get_logger(__name__)

DESCRIPTION = """Manage a fleet of edge devices: register and provision them, keep their shadows, reach each one
through its tunnel, publish flows in versions and roll them out.

Sign in (`POST /auth/login`) and send `Authorization: Bearer …`, or send an API key as `X-API-Key: edgeflow_…`.
`X-Organization-Id` switches to another of your organizations."""


def create_app() -> Flask:
    """The web application, configured from the environment. Raises SettingsError."""
    config = settings()
    plans()
    configure_logging(config)
    app = EdgeFlow(__name__, static_folder=None)
    app.config.update(_flask_config(config))
    app.wsgi_app = EditorGate(app.wsgi_app)  # type: ignore[method-assign]
    if config.proxy_hops:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=config.proxy_hops, x_proto=config.proxy_hops)  # type: ignore[method-assign]
    db.configure(config.database_url)
    observe_requests(app)
    JWTManager(app)
    limits.limiter.enabled = config.rate_limits
    limits.count_addresses(app)
    _handle_errors(app)
    app.register_blueprint(health)
    _document(app)
    mount(app)
    app.extensions["watcher"] = watcher
    return app


def _flask_config(config: Settings) -> dict[str, object]:
    return {
        "MAX_CONTENT_LENGTH": MAX_BODY_BYTES,
        "JWT_SECRET_KEY": config.jwt_secret_key,
        "JWT_ALGORITHM": "HS256",
        "JWT_DECODE_ALGORITHMS": ["HS256"],
        "JWT_ENCODE_ISSUER": "edgeflow-cloud",
        "JWT_DECODE_ISSUER": "edgeflow-cloud",
        "JWT_ENCODE_AUDIENCE": "edgeflow-api",
        "JWT_DECODE_AUDIENCE": "edgeflow-api",
        "JWT_ACCESS_TOKEN_EXPIRES": config.access_token_seconds,
        "RATELIMIT_STORAGE_URI": config.redis_url,
        "RATELIMIT_STORAGE_OPTIONS": limits.storage_options(),
        "API_TITLE": "EdgeFlow Cloud",
        "API_VERSION": "v1",
        "OPENAPI_VERSION": "3.1.0",
        "OPENAPI_URL_PREFIX": PREFIX,
        "OPENAPI_JSON_PATH": "openapi.json",
        "OPENAPI_SWAGGER_UI_PATH": "docs",
        "OPENAPI_SWAGGER_UI_URL": f"{PREFIX}/docs/assets/",
        "API_SPEC_OPTIONS": {"info": {"description": DESCRIPTION}, "servers": [{"url": "/"}]},
    }


def _document(app: Flask) -> None:
    api = Api(app)
    api.ma_plugin.converter.add_parameter_attribute_function(describe_filter)
    schemes = api.spec.components
    schemes.security_scheme("bearer", {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"})
    schemes.security_scheme("apiKey", {"type": "apiKey", "in": "header", "name": "X-API-Key"})
    text = {"type": "string", "minLength": 1, "maxLength": 255}
    key = {"name": "Idempotency-Key", "schema": text, "description": "makes a repeat safe for 24 h"}
    schemes.parameter("IdempotencyKey", "header", key)
    for blueprint in rooms.blueprints():
        api.register_blueprint(blueprint)
    app.add_url_rule(f"{PREFIX}/docs/assets/<path:name>", "docs-assets", _asset)
    app.add_url_rule("/favicon.ico", "favicon", lambda: _asset("favicon-32x32.png"))


def _asset(name: str) -> Response:
    """Swagger UI's own files, from its wheel: the page asks no other host."""
    return send_from_directory(f"{flask_swagger_ui.__path__[0]}/dist", name)


def _handle_errors(app: Flask) -> None:
    app.register_error_handler(AppError, error_response)
    for unavailable in (OperationalError, InterfaceError, PoolTimeout):
        app.register_error_handler(unavailable, _database_away)
    app.register_error_handler(DBAPIError, _database_failed)


def _database_failed(error: DBAPIError) -> Response:
    """A session that the server ended (it was idle too long in a transaction, say) is no fault of the request."""
    if error.connection_invalidated:
        return _database_away(error)
    raise error


def _database_away(error: Exception) -> Response:
    log.error("database away", error=str(error).splitlines()[0])
    return error_response(ServiceUnavailable())
