"""What gunicorn's HTTP side does for each request: our error body, and less work.

It has no settings for these, so its functions are replaced; ``patch`` is called by the settings of the web processes.
Each is what it was to whoever calls, and some of them were a tenth of a short request.
"""

import functools
import http
import json
import socket
import time
from typing import Any
from uuid import uuid4

import gunicorn.http.wsgi
import gunicorn.util
from gunicorn.http.body import LengthReader
from gunicorn.http.message import Request
from gunicorn.http.parser import Parser
from gunicorn.http.unreader import SocketUnreader
from gunicorn.http.wsgi import Response

from config.sockets import send_all, wait_for_data

SHORT_BYTES = 16_384

_write, _http_date = Response.write, gunicorn.util.http_date
_chunk, _finish_body, _parse_headers = SocketUnreader.chunk, Parser.finish_body, Request.parse_headers

Headers = list[tuple[str, str]]


def patch() -> None:
    """Put ours in place of theirs, in this process and those that it forks."""
    gunicorn.util.write_error = refuse
    gunicorn.util.write = write
    gunicorn.util.http_date = http_date
    gunicorn.http.wsgi.WSGIErrorsWrapper = functools.cache(gunicorn.http.wsgi.WSGIErrorsWrapper)
    Response.write = write_together
    Parser.finish_body = finish_body
    SocketUnreader.chunk = chunk
    Request.parse_headers = parse_headers


def refuse(peer: socket.socket, status: int, reason: str, _message: str) -> None:
    """Answer a request so malformed that it never reaches the application, in the API's one shape."""
    code = "VALIDATION_ERROR" if status == 400 else http.HTTPStatus(status).name
    body = {"error": reason.lower(), "code": code, "status": status, "request_id": uuid4().hex}
    content = json.dumps({**body, "details": {}} if status == 400 else body)
    head = f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
    gunicorn.util.write_nonblock(peer, f"{head}Content-Length: {len(content)}\r\n\r\n{content}".encode())


def write(peer: socket.socket, data: bytes, chunked: bool = False) -> None:
    if chunked:
        gunicorn.util.write_chunk(peer, data)
    else:
        send_all(peer, data)


def write_together(answer: Any, body: bytes) -> None:
    """Send the head and a short, whole body in one packet: by itself it sends two, and wakes the caller twice."""
    whole = not answer.headers_sent and not answer.chunked and answer.response_length == len(body)
    if type(answer) is not Response or not whole or len(body) > SHORT_BYTES or answer._omits_body:
        _write(answer, body)
        return
    lines = [*answer.default_headers(), *(f"{name}: {value}\r\n" for name, value in answer.headers), "\r\n"]
    gunicorn.util.write(answer.sock, "".join(lines).encode("latin-1") + body)
    answer.headers_sent, answer.sent = True, len(body)


def http_date(timestamp: float | None = None) -> str:
    """Made once a second."""
    return _date_of(int(time.time() if timestamp is None else timestamp))


_date_of = functools.lru_cache(maxsize=2)(_http_date)


def finish_body(parser: Any, deadline: float | None = None, max_bytes: int | None = None) -> bool:
    """Of most requests nothing is left to be read: they have no body, or it was read."""
    body = parser.mesg and parser.mesg.body
    if body and type(body.reader) is LengthReader and body.reader.length == 0 and not body.failed:
        return True
    finished: bool = _finish_body(parser, deadline, max_bytes)
    return finished


def chunk(unreader: Any, size_hint: int | None = None) -> bytes:
    """The next request has hardly ever come yet."""
    if size_hint is None:
        wait_for_data(unreader.sock)
    got: bytes = _chunk(unreader, size_hint)
    return got


def parse_headers(request: Any, data: bytes, from_trailer: bool = False) -> Headers:
    """Once for all requests of a connection that say the same: a program sends the same headers with each of them."""
    if from_trailer:
        trailers: Headers = _parse_headers(request, data, from_trailer=True)
        return trailers
    known: tuple[bytes, Headers] | None = getattr(request.unreader, "_known_headers", None)
    if known and known[0] == data:
        return known[1].copy()
    headers: Headers = _parse_headers(request, data)
    # What they say of the request itself, beside what the application reads, is read anew.
    if not (request.cfg.secure_scheme_headers or any(name == "EXPECT" for name, _value in headers)):
        request.unreader._known_headers = data, headers.copy()
    return headers
