"""What the routes of this server have at hand: the application keeps its account and its deliverer.

``account`` and ``deliverer`` stand for those of the application that serves the request at hand.
"""

from typing import cast

from flask import Flask, current_app
from werkzeug.local import LocalProxy

from tools.local_stripe.account import Account
from tools.local_stripe.webhooks import Deliverer

_ACCOUNT, _DELIVERER = "local_stripe.account", "local_stripe.deliverer"


def hold(app: Flask, account: Account, deliverer: Deliverer) -> None:
    app.extensions.update({_ACCOUNT: account, _DELIVERER: deliverer})


account = cast(Account, LocalProxy(lambda: current_app.extensions[_ACCOUNT]))
deliverer = cast(Deliverer, LocalProxy(lambda: current_app.extensions[_DELIVERER]))
