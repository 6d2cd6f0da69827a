"""What a person sees on an editor's origin instead of the editor: a small page that asks nothing of any host."""

import html
import http
from collections.abc import Callable, Iterable
from typing import Any

StartResponse = Callable[..., Any]

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body {{ font: 16px/1.5 system-ui, sans-serif; margin: 15vh auto; max-width: 34em; padding: 0 1em }}</style>
</head><body><h1>{title}</h1><p>{text}</p></body></html>
"""
_HEADERS = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Cache-Control", "no-store"),
    ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
]
AGAIN = "Open the editor again from EdgeFlow Cloud."


class Refused(Exception):
    """A request that is answered by a page. ``why`` is for the counters."""

    def __init__(self, status: int, title: str, text: str, why: str, **headers: str) -> None:
        super().__init__(title)
        self.status, self.title, self.text, self.why = status, title, text, why
        self.headers = [(name.replace("_", "-"), value) for name, value in headers.items()]


def not_signed_in(words: str) -> Refused:
    return Refused(403, "This editor is not open", f"{words[:1].upper()}{words[1:]}. {AGAIN}", "session")


def answer(refused: Refused, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the page."""
    page = _PAGE.format(title=html.escape(refused.title), text=html.escape(refused.text)).encode()
    length = [("Content-Length", str(len(page)))]
    start_response(status_line(refused.status), [*_HEADERS, *length, *refused.headers])
    return [page]


def status_line(status: int) -> str:
    try:
        return f"{status} {http.HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Unknown"
