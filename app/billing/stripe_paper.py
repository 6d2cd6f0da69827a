"""An invoice's PDF as Stripe draws it: not a call of its API, but a page at an address that the API has told."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx

from app.billing.stripe_client import CONNECT_SECONDS, TIMEOUT_SECONDS, StripeDown, StripeRefused
from config.settings import settings


@contextmanager
def fetched(url: str) -> Iterator[Iterator[bytes]]:
    """An invoice's PDF, piece by piece, from the ``invoice_pdf`` address that Stripe gave with it.

    Asks nobody but Stripe: raises StripeRefused for an address elsewhere, and for one that gives no PDF.
    """
    if not _is_stripes(url):
        raise StripeRefused("the address of the invoice is not Stripe's")
    limits = httpx.Timeout(TIMEOUT_SECONDS, connect=CONNECT_SECONDS)
    try:
        with _follow(url, limits) as answer:
            if answer.status_code >= 500 or answer.status_code == 429:
                raise StripeDown(f"Stripe answered {answer.status_code} for an invoice's PDF")
            kind = answer.headers.get("Content-Type", "")
            if answer.status_code != 200 or not kind.startswith("application/pdf"):
                raise StripeRefused("there is no PDF of this invoice", status=answer.status_code)
            yield answer.iter_bytes(64 * 1024)
    except httpx.HTTPError as error:
        raise StripeDown(f"Stripe's PDF: {type(error).__name__}") from error


def _is_stripes(url: str) -> bool:
    asked, base = urlsplit(url), urlsplit(settings().stripe_api_base)
    if (asked.scheme, asked.netloc) == (base.scheme, base.netloc):
        return True
    host = asked.hostname or ""
    return asked.scheme == "https" and (host == "stripe.com" or host.endswith(".stripe.com"))


@contextmanager
def _follow(url: str, limits: httpx.Timeout) -> Iterator[httpx.Response]:
    """The answer behind at most three redirections, none of which leaves Stripe."""
    for _ in range(4):
        with httpx.stream("GET", url, timeout=limits, follow_redirects=False, trust_env=False) as answer:
            if not answer.has_redirect_location:
                yield answer
                return
            url = str(answer.next_request.url) if answer.next_request else ""
        if not _is_stripes(url):
            raise StripeRefused("the address of the invoice leads elsewhere than to Stripe")
    raise StripeRefused("the address of the invoice leads nowhere")
