"""``python -m tools.local_stripe --port P --data FILE``."""

from gevent import monkey

monkey.patch_all()  # before anything that opens a socket is imported

import signal  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import click  # noqa: E402

from tools.local_stripe.account import Account  # noqa: E402
from tools.local_stripe.server import prepare, serve  # noqa: E402
from tools.local_stripe.store import Store  # noqa: E402


@click.command()
@click.option("--port", type=click.IntRange(1, 65_535), required=True, help="listen on 127.0.0.1:PORT")
@click.option("--data", type=click.Path(dir_okay=False, path_type=Path), required=True, help="SQLite file")
@click.option("--key", envvar="STRIPE_API_KEY", default="sk_test_local", show_default=True, help="the secret API key")
@click.option("--webhook", help="URL that events are delivered to")
@click.option(
    "--webhook-secret",
    multiple=True,
    envvar="STRIPE_WEBHOOK_SECRET",
    help="signs deliveries; two of them while one is being replaced",
)
@click.option(
    "--plans", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="prices come from this file"
)
@click.option("--meter", multiple=True, help="event name of a meter that is to be there")
def main(
    port: int, data: Path, key: str, webhook: str | None, webhook_secret: tuple[str, ...], plans: Path | None,
    meter: tuple[str, ...],
) -> None:  # fmt: skip
    """A small Stripe of one account, with memory.

    Key and secrets are better told by the environment: a command line is everybody's to read.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    data.parent.mkdir(parents=True, exist_ok=True)
    account = Account(
        Store(data),
        f"http://127.0.0.1:{port}",
        key,
        webhook,
        [one for given in webhook_secret for one in given.split(",")],
    )
    prepare(account, plans, list(meter))
    try:
        serve(account, port)
    except OSError as error:
        raise SystemExit(f"cannot listen on 127.0.0.1:{port}: {error.strerror or error}") from error


if __name__ == "__main__":
    main()
