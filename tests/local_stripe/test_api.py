"""What holds for every endpoint: keys, parameters, lists, expansion, idempotency, faults."""

import threading
from typing import Any

import httpx
import pytest
import stripe

from tests.local_stripe.conftest import Someone
from tests.local_stripe.process import KEY, LocalStripe, until
from tests.platform import TLS


def raw(server: LocalStripe, method: str, path: str, key: str | None = None, **data: Any) -> httpx.Response:
    """A request that Stripe's library would not make."""
    headers = {"Authorization": f"Bearer {KEY}", **({"Idempotency-Key": key} if key else {})}
    return httpx.request(
        method, server.base + path, headers=headers, data=data or None, trust_env=False, timeout=30, verify=TLS
    )


def test_a_wrong_key_is_refused(server: LocalStripe) -> None:
    with pytest.raises(stripe.AuthenticationError):
        server.client("sk_test_other").v1.customers.list()


def test_what_is_unknown_is_refused(server: LocalStripe, api: stripe.StripeClient) -> None:
    answer = raw(server, "POST", "/v1/customers", emial="ann@example.com")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "parameter_unknown")
    assert answer.headers["Request-Id"].startswith("req_")
    assert raw(server, "GET", "/v1/nothing").json()["error"]["message"].startswith("Unrecognized request URL")
    assert raw(server, "PUT", "/v1/customers").status_code == 404
    with pytest.raises(stripe.InvalidRequestError) as refused:
        api.v1.customers.retrieve("cus_none")
    assert (refused.value.code, refused.value.http_status) == ("resource_missing", 404)


def test_metadata_is_merged_and_unset(api: stripe.StripeClient) -> None:
    id = api.v1.customers.create({"name": "Ann", "metadata": {"a": "1", "7": "seven"}}).id
    changed = api.v1.customers.update(id, {"name": "", "metadata": {"a": "", "b": "2"}})
    assert (changed.name, changed.metadata.to_dict()) == (None, {"7": "seven", "b": "2"})


def test_lists_go_by_pages_newest_first(api: stripe.StripeClient) -> None:
    made = [api.v1.customers.create({"email": "pages@example.com"}).id for _ in range(5)]
    first = api.v1.customers.list({"email": "pages@example.com", "limit": 2})
    assert ([one.id for one in first.data], first.has_more) == (made[:2:-1], True)
    everyone = [one.id for one in first.auto_paging_iter()]
    assert everyone == made[::-1]
    back = api.v1.customers.list({"email": "pages@example.com", "limit": 2, "ending_before": made[0]})
    assert ([one.id for one in back.data], back.has_more) == ([made[2], made[1]], True)
    with pytest.raises(stripe.InvalidRequestError):
        api.v1.customers.list({"limit": 101})


def test_expansion_follows_paths_through_lists(someone: Someone) -> None:
    someone.card()
    someone.subscribe()
    paths = ["data.latest_invoice.payments.data.payment.payment_intent", "data.default_payment_method", "data.customer"]
    found = someone.api.v1.subscriptions.list({"customer": someone.id, "expand": paths}).data[0]
    assert isinstance(found.customer, stripe.Customer)
    assert isinstance(found.latest_invoice, stripe.Invoice)
    assert found.latest_invoice.payments.data[0].payment.payment_intent.amount == 4900
    with pytest.raises(stripe.InvalidRequestError):
        someone.api.v1.customers.retrieve(someone.id, {"expand": ["nothing"]})


def test_a_key_gives_the_same_answer_once_and_for_all(server: LocalStripe, api: stripe.StripeClient) -> None:
    first = raw(server, "POST", "/v1/customers", "key-1", email="once@example.com", name="Ann")
    again = raw(server, "POST", "/v1/customers", "key-1", name="Ann", email="once@example.com")
    assert (again.content, again.status_code) == (first.content, 200)
    assert (again.headers["Idempotent-Replayed"], "Idempotent-Replayed" in first.headers) == ("true", False)
    assert again.headers["Original-Request"] == first.headers["Request-Id"]
    assert len(api.v1.customers.list({"email": "once@example.com"}).data) == 1
    with pytest.raises(stripe.IdempotencyError):
        api.v1.customers.create({"email": "other@example.com"}, {"idempotency_key": "key-1"})


def test_a_refusal_is_remembered_but_not_a_malformed_request(someone: Someone) -> None:
    someone.card("pm_card_chargeCustomerFail")
    someone.subscribe()
    invoice = someone.invoices()[0].id
    for _ in range(2):
        with pytest.raises(stripe.CardError):
            someone.api.v1.invoices.pay(invoice, {}, {"idempotency_key": f"pay-{invoice}"})
    assert someone.invoices()[0].attempt_count == 2  # the first of creation, the second here, and no third
    for email in (None, "late@example.com"):
        answer = raw(someone.server, "POST", "/v1/customers", f"bad-{invoice}", email=email or "", wrong=email or "1")
        assert answer.json()["error"]["code"] == "parameter_unknown"
    assert raw(someone.server, "POST", "/v1/customers", f"bad-{invoice}", email="x@example.com").status_code == 200


def test_a_key_in_use_is_409_and_one_effect_comes_of_it(server: LocalStripe, api: stripe.StripeClient) -> None:
    server.tell("/faults", path="/v1/customers", delay=1.0)
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(raw(server, "POST", "/v1/customers", "busy", email="busy@example.com"))

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
    assert len(api.v1.customers.list({"email": "busy@example.com"}).data) == 1


@pytest.mark.parametrize(
    ("status", "error"), [(500, stripe.APIError), (429, stripe.RateLimitError), (0, stripe.APIConnectionError)]
)
def test_faults_come_before_the_effect_or_after_it(
    server: LocalStripe, api: stripe.StripeClient, status: int, error: type[Exception]
) -> None:
    for after, there in ((False, 0), (True, 1)):
        email, key = f"fault-{status}-{after}@example.com", {"idempotency_key": f"fault-{status}-{after}"}
        server.tell("/faults", status=status, path="/v1/customers", times=1, after_effect=after)
        with pytest.raises(error):
            api.v1.customers.create({"email": email}, key)
        assert len(api.v1.customers.list({"email": email}).data) == there
        api.v1.customers.create({"email": email}, key)
        assert len(api.v1.customers.list({"email": email}).data) == 1


def test_faults_choose_their_requests(server: LocalStripe, api: stripe.StripeClient) -> None:
    server.tell("/faults", status=500, path="/v1/invoices", method="GET", times=2)
    api.v1.customers.list()
    for _ in range(2):
        with pytest.raises(stripe.APIError):
            api.v1.invoices.list()
    api.v1.invoices.list()


def test_requests_are_told(server: LocalStripe, api: stripe.StripeClient) -> None:
    server.local.delete("/requests")
    api.v1.customers.create({"email": "told@example.com"}, {"idempotency_key": "told"})
    (told,) = server.local.get("/requests").json()
    assert (told["method"], told["path"], told["idempotency_key"]) == ("POST", "/v1/customers", "told")
    assert told["params"] == "email=told%40example.com"


def test_a_test_clock_tells_when_it_has_arrived(someone: Someone) -> None:
    clocks = someone.api.v1.test_helpers.test_clocks
    target = clocks.retrieve(someone.clock).frozen_time + 86_400
    assert clocks.advance(someone.clock, {"frozen_time": target}).status == "advancing"
    until(lambda: clocks.retrieve(someone.clock).status == "ready")
    assert someone.api.v1.customers.create({"test_clock": someone.clock}).created == target
    with pytest.raises(stripe.InvalidRequestError):
        clocks.advance(someone.clock, {"frozen_time": target - 1})


def test_customers_may_be_put_under_a_clock_unasked(someone: Someone) -> None:
    someone.server.tell("/clock", test_clock=someone.clock)
    assert someone.api.v1.customers.create({"email": "under@example.com"}).test_clock == someone.clock
    someone.server.tell("/clock", test_clock=None)
    assert someone.api.v1.customers.create({"email": "free@example.com"}).test_clock is None
