"""The HTTP server on 127.0.0.1 with its two companions: the deliverer of webhooks and the ticker."""

import socket
from pathlib import Path
from typing import Any

import gevent
from flask import Flask
from gevent.pywsgi import WSGIHandler, WSGIServer

from tools.local_stripe import control, held, hosted
from tools.local_stripe.account import Account
from tools.local_stripe.api import Api
from tools.local_stripe.clock import Ticker
from tools.local_stripe.faults import SOCKET
from tools.local_stripe.resources import catalog, meters
from tools.local_stripe.webhooks import Deliverer


class _Handler(WSGIHandler):
    def get_environ(self) -> dict[str, Any]:
        return {**super().get_environ(), SOCKET: self.socket}

    def log_request(self) -> None:
        """Requests are kept for ``/_local/requests``."""


def create_app(account: Account, deliverer: Deliverer) -> Flask:
    app = Flask("local_stripe", static_folder=None)
    api = Api(account)
    for method, path, view in api.views():
        app.add_url_rule(path, f"{method} {path}", view, methods=[method], provide_automatic_options=False)
    held.hold(app, account, deliverer)
    app.register_blueprint(control.routes)
    app.register_blueprint(hosted.routes)
    for status in (404, 405):
        app.register_error_handler(status, lambda _: api.unknown())
    return app


def prepare(account: Account, plans: Path | None, meter_names: list[str]) -> None:
    """What has to be there before the first request: prices, meters, a webhook endpoint told at run time."""
    if plans:
        catalog.seed(account, plans)
    meters.seed(account, meter_names)
    endpoint = account.store.setting("endpoint", {})
    account.webhook_url = endpoint.get("url", account.webhook_url)
    account.webhook_secrets = endpoint.get("secrets", account.webhook_secrets)
    account.store.commit()


def serve(account: Account, port: int) -> None:
    """Until the process ends. Raises OSError where the port is taken."""
    deliverer = Deliverer(account)
    server = WSGIServer(("127.0.0.1", port), create_app(account, deliverer), handler_class=_Handler, log=None)
    server.init_socket()
    # Inherited by what it accepts. Without it the second part of an answer waits 40 ms for the first one's receipt.
    server.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    gevent.spawn(deliverer.run)
    gevent.spawn(Ticker(account).run)
    server.serve_forever()
