"""Invoices over the API: listed, read, and downloaded as a PDF: Stripe's own, or drawn here where it has none."""

import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from uuid import uuid4

import httpx
import pytest
from pypdf import PdfReader

from app import db
from app.billing.models import Invoice
from app.clock import now
from config.settings import settings
from tests.billing.helpers_routes import Buyer
from tests.platform import TLS

INVOICES = "/billing/invoices"


def stored(buyer: Buyer, **fields: Any) -> str:
    """An invoice that our tables know, and Stripe does not."""
    row = Invoice(
        **{
            "id": uuid4(), "org_id": buyer.org_id, "stripe_id": f"in_{uuid4().hex}", "number": "EF-7", "status": "paid",
            "currency": "eur", "subtotal": 4900, "tax": 0, "total": 4900, "amount_paid": 4900, "amount_due": 0,
            "period_start": now(), "period_end": now(), "created_at": now(),
            "lines": [{"description": "1 × Pro", "quantity": 1, "amount": 4900}], **fields,
        }
    )  # fmt: skip
    with db.transaction(buyer.org_id) as session:
        session.add(row)
    return str(row.id)


def text_of(pdf: bytes) -> str:
    return " ".join(page.extract_text() for page in PdfReader(io.BytesIO(pdf)).pages)


def test_a_subscription_has_an_invoice(buyer: Buyer) -> None:
    assert buyer.get(INVOICES, expect=200) == {"items": [], "total": 0, "limit": 50, "offset": 0}
    buyer.subscribe("pro")
    (listed,) = buyer.get(INVOICES, expect=200)["items"]
    assert (listed["status"], listed["currency"], listed["total"], listed["amount_paid"], listed["amount_due"]) == (
        "paid", "eur", 4900, 4900, 0,
    )  # fmt: skip
    assert listed["number"]
    assert "lines" not in listed
    shown = buyer.get(f"{INVOICES}/{listed['id']}", expect=200)
    assert {name: shown[name] for name in listed} == listed
    assert [line["amount"] for line in shown["lines"]] == [4900]
    assert buyer.colleague("viewer").get(f"{INVOICES}/{listed['id']}", expect=200) == shown


def test_lists_are_filtered_sorted_and_paged(buyer: Buyer) -> None:
    for number in range(3):
        stored(buyer, number=f"EF-{number}", total=100 * number, status="open" if number == 1 else "paid")
    assert [one["number"] for one in buyer.get(f"{INVOICES}?status=open", expect=200)["items"]] == ["EF-1"]
    assert [one["number"] for one in buyer.get(f"{INVOICES}?sort=-total", expect=200)["items"]] == [
        "EF-2",
        "EF-1",
        "EF-0",
    ]
    answer = buyer.get(f"{INVOICES}?sort=number&limit=1&offset=1")
    assert (answer.json["total"], [one["number"] for one in answer.json["items"]]) == (3, ["EF-1"])
    assert 'rel="next"' in answer.headers["Link"]
    assert buyer.get(f"{INVOICES}?status=late", expect=400)["details"].keys() == {"status"}


def test_stripes_paper_is_handed_on(buyer: Buyer) -> None:
    buyer.subscribe("pro")
    (listed,) = buyer.get(INVOICES, expect=200)["items"]
    answer = buyer.get(f"{INVOICES}/{listed['id']}/download")
    assert (answer.status_code, answer.mimetype) == (200, "application/pdf")
    assert answer.headers["Content-Disposition"] == f"attachment; filename={listed['number']}.pdf"
    (stripe_id,) = buyer.rows("SELECT stripe_id FROM invoices")[0]
    theirs = httpx.get(buyer.stripe.v1.invoices.retrieve(stripe_id).invoice_pdf, trust_env=False, verify=TLS)
    assert text_of(answer.data) == text_of(theirs.content)
    assert listed["number"] in text_of(answer.data)


def test_where_stripe_has_no_paper_one_is_drawn_here(buyer: Buyer) -> None:
    answer = buyer.get(f"{INVOICES}/{stored(buyer)}/download")
    assert (answer.status_code, answer.mimetype) == (200, "application/pdf")
    assert answer.headers["Content-Disposition"] == "attachment; filename=EF-7.pdf"
    told = text_of(answer.data)
    for words in ("EF-7", "Acme", "Pro", "49.00"):
        assert words in told


def test_a_draft_has_no_paper(buyer: Buyer) -> None:
    refused = buyer.get(f"{INVOICES}/{stored(buyer, number=None, status='draft')}/download", expect=409)
    assert (refused["code"], refused["current_state"]) == ("INVALID_STATE", "draft")


def test_while_stripe_is_away_there_is_no_paper(buyer: Buyer) -> None:
    buyer.subscribe("pro")
    (listed,) = buyer.get(INVOICES, expect=200)["items"]
    buyer.fault(500, "/v1/invoices/in_")
    refused = buyer.get(f"{INVOICES}/{listed['id']}/download")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "2")


def test_anothers_invoice_is_not_found(buyer: Buyer, app: Any) -> None:
    invoice = stored(buyer)
    other = Buyer(app, buyer.stripe)
    for path in (f"{INVOICES}/{invoice}", f"{INVOICES}/{invoice}/download"):
        assert other.get(path, expect=404)["error"] == "invoice not found"


SIZE, PIECE = 3_000_000, 200_000


class Slow(BaseHTTPRequestHandler):
    """A Stripe that has sent the first piece of a paper, and waits with the rest until that has been read."""

    read = threading.Event()
    in_time = False
    held: ClassVar[list[int]] = []
    """Connections to the database that were in use when something was asked."""

    def do_GET(self) -> None:
        Slow.held.append(db.pool_status()["in_use"])
        if self.path.startswith("/v1/"):
            paper = f"http://{self.headers['Host']}/paper"
            self._answer(
                "application/json", json.dumps({"id": "in_1", "object": "invoice", "invoice_pdf": paper}).encode()
            )
            return
        self._head("application/pdf", SIZE)
        self.wfile.write(b"%PDF" + b"x" * (PIECE - 4))
        self.wfile.flush()
        Slow.in_time = Slow.read.wait(10)
        self.wfile.write(b"y" * (SIZE - PIECE))

    def _answer(self, kind: str, body: bytes) -> None:
        self._head(kind, len(body))
        self.wfile.write(body)

    def _head(self, kind: str, length: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def slow_stripe(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("STRIPE_API_KEY", "sk_test_slow")
    monkeypatch.setenv("STRIPE_API_BASE", f"http://127.0.0.1:{server.server_address[1]}")
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("slow_stripe")
def test_a_paper_is_passed_on_piece_by_piece_with_no_transaction_open(app: Any) -> None:
    buyer = Buyer(app, None)
    answer = buyer.http.get(f"/api/v1{INVOICES}/{stored(buyer)}/download", headers=buyer.headers, buffered=False)
    pieces = iter(answer.response)
    first = next(pieces)
    assert first.startswith(b"%PDF")
    assert len(first) <= PIECE
    Slow.read.set()
    assert len(first) + sum(map(len, pieces)) == SIZE
    assert Slow.in_time
    assert Slow.held == [0, 0]
    answer.close()
