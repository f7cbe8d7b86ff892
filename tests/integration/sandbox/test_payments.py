"""The payment provider, as Stripe's own library sees it."""

import asyncio

import httpx
import pytest
import stripe

from app.dev.sandbox.audit import audit_payments
from tests.integration.sandbox.process import SandboxProcess, stripe_client

# Stripe's own library hands its form to httpx in a way that httpx would rather not have.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning:httpx")

CREATE = {
    "amount": 1467,
    "currency": "usd",
    "payment_method": "pm_card_visa",
    "payment_method_types": ["card"],
    "capture_method": "manual",
    "metadata": {"order_id": "ord_1", "correlation_id": "c-1"},
}
DECLINES = [
    ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
    ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline"),
    ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
    ("pm_card_chargeDeclinedLostCard", "card_declined", "lost_card"),
    ("pm_card_chargeDeclinedStolenCard", "card_declined", "stolen_card"),
    ("pm_card_chargeDeclinedFraudulent", "card_declined", "fraudulent"),
    ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
    ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", None),
    ("pm_card_chargeDeclinedProcessingError", "processing_error", None),
]


def options(key: str):
    """The library's way to send a key."""
    return {"idempotency_key": key}


async def authorized(client: stripe.StripeClient, **changes) -> stripe.PaymentIntent:
    """Create and confirm at once."""
    return await client.v1.payment_intents.create_async({**CREATE, **changes, "confirm": True})


async def test_an_intent_is_created_confirmed_and_captured(client, sandbox):
    """The way of an order's money: nothing is held before confirm, nothing taken before capture."""
    intents = client.v1.payment_intents
    created = await intents.create_async(CREATE)
    assert (created.status, created.amount_capturable) == ("requires_confirmation", 0)
    assert created.id.startswith("pi_")
    assert created.livemode is False
    confirmed = await intents.confirm_async(created.id, {"error_on_requires_action": True})
    assert (confirmed.status, confirmed.amount_capturable) == ("requires_capture", 1467)
    assert confirmed.latest_charge.startswith("ch_")
    captured = await intents.capture_async(created.id, {"amount_to_capture": 1467})
    assert (captured.status, captured.amount_received, captured.amount_capturable) == ("succeeded", 1467, 0)
    read = await intents.retrieve_async(created.id)
    assert read.metadata["order_id"] == "ord_1"
    assert read == captured
    assert (await sandbox.state())["ledger"] == {"usd": {"authorized": 1467, "captured": 1467}}


async def test_automatic_capture_takes_the_money_at_once(client):
    """Without capture_method=manual a confirmed intent has succeeded."""
    intent = await authorized(client, capture_method="automatic")
    assert (intent.status, intent.amount_received) == ("succeeded", 1467)


@pytest.mark.parametrize(("method", "code", "decline_code"), DECLINES)
async def test_a_declined_card_is_a_card_error(client, method, code, decline_code):
    """402 with Stripe's codes, the intent inside, and the intent waits for another method."""
    with pytest.raises(stripe.CardError) as caught:
        await authorized(client, payment_method=method)
    error = caught.value
    assert (error.http_status, error.code, error.error.decline_code) == (402, code, decline_code)
    inside = error.error.payment_intent
    intent = await client.v1.payment_intents.retrieve_async(inside.id)
    assert intent.status == inside.status == "requires_payment_method"
    assert intent.payment_method is None
    assert intent.last_payment_error.code == code
    again = await client.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_amex"})
    assert again.status == "requires_capture"
    assert again.last_payment_error is None


async def test_a_card_that_asks_its_holder_is_declined_when_nobody_is_there(client):
    """off_session and error_on_requires_action decline; otherwise the intent waits for the customer."""
    method = "pm_card_authenticationRequired"
    for flag in ("off_session", "error_on_requires_action"):
        with pytest.raises(stripe.CardError) as caught:
            await authorized(client, payment_method=method, **{flag: True})
        assert caught.value.code == "authentication_required"
    waiting = await authorized(client, payment_method=method)
    assert (waiting.status, waiting.next_action.type) == ("requires_action", "use_stripe_sdk")
    assert (await client.v1.payment_intents.cancel_async(waiting.id)).status == "canceled"


async def test_cancel_lets_the_money_go(client, sandbox):
    """What was authorized is voided; the reason is kept; a second cancel is refused."""
    intent = await authorized(client)
    cancelled = await client.v1.payment_intents.cancel_async(intent.id, {"cancellation_reason": "abandoned"})
    assert (cancelled.status, cancelled.amount_capturable) == ("canceled", 0)
    assert cancelled.cancellation_reason == "abandoned"
    assert cancelled.canceled_at is not None
    assert (await sandbox.state())["ledger"] == {"usd": {"authorized": 1467, "voided": 1467}}
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await client.v1.payment_intents.cancel_async(intent.id)
    assert caught.value.code == "payment_intent_unexpected_state"
    assert caught.value.error.payment_intent.status == "canceled"


async def test_what_an_intent_is_not_ready_for_is_refused(client):
    """Capture before confirm, confirm or capture twice, cancel after capture: refused, nothing changes."""
    intents = client.v1.payment_intents
    intent = await intents.create_async(CREATE)

    async def refused(call):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            await call
        assert (caught.value.http_status, caught.value.code) == (400, "payment_intent_unexpected_state")

    await refused(intents.capture_async(intent.id))
    await intents.confirm_async(intent.id)
    await refused(intents.confirm_async(intent.id))
    await intents.capture_async(intent.id)
    await refused(intents.capture_async(intent.id))
    await refused(intents.cancel_async(intent.id))
    assert (await intents.retrieve_async(intent.id)).amount_received == 1467


async def test_a_part_may_be_captured_and_the_rest_is_let_go(client, sandbox):
    """amount_to_capture up to what is held, and no more."""
    intent = await authorized(client)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await client.v1.payment_intents.capture_async(intent.id, {"amount_to_capture": 1468})
    assert caught.value.code == "amount_too_large"
    captured = await client.v1.payment_intents.capture_async(intent.id, {"amount_to_capture": 1000})
    assert captured.amount_received == 1000
    ledger = (await sandbox.state())["ledger"]
    assert ledger == {"usd": {"authorized": 1467, "captured": 1000, "voided": 467}}


async def test_refunds_give_back_no_more_than_was_taken(client):
    """In parts, then the rest, then nothing; an intent without captured money has nothing to give."""
    intent = await authorized(client, capture_method="automatic")
    refunds = client.v1.refunds
    part = await refunds.create_async({"payment_intent": intent.id, "amount": 467, "metadata": {"a": "b"}})
    assert (part.amount, part.status, part.payment_intent) == (467, "succeeded", intent.id)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await refunds.create_async({"payment_intent": intent.id, "amount": 1001})
    assert caught.value.param == "amount"
    rest = await refunds.create_async({"payment_intent": intent.id, "reason": "requested_by_customer"})
    assert rest.amount == 1000
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await refunds.create_async({"payment_intent": intent.id})
    assert caught.value.code == "charge_already_refunded"
    held = await authorized(client)
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await refunds.create_async({"payment_intent": held.id})
    assert caught.value.code == "payment_intent_unexpected_state"
    listed = await refunds.list_async({"payment_intent": intent.id})
    assert [refund.id for refund in listed.data] == [rest.id, part.id]


@pytest.mark.parametrize(
    ("change", "code", "param"),
    [
        ({"amount": "0"}, "parameter_invalid_integer", "amount"),
        ({"amount": "-5"}, "parameter_invalid_integer", "amount"),
        ({"amount": "1.5"}, "parameter_invalid_integer", "amount"),
        ({"amount": "1_000"}, "parameter_invalid_integer", "amount"),
        ({"amount": "100000000"}, "amount_too_large", "amount"),
        ({"amount": ""}, "parameter_missing", "amount"),
        ({"currency": ""}, "parameter_missing", "currency"),
        ({"currency": "dollars"}, "invalid_currency", "currency"),
        ({"payment_method": "pm_nobody_knows"}, "resource_missing", "payment_method"),
        ({"colour": "red"}, "parameter_unknown", "colour"),
        ({"off_session": "true"}, None, "off_session"),
        ({"capture_method": "later"}, None, "capture_method"),
        ({"metadata[order_id]": "x" * 501}, None, "metadata[order_id]"),
    ],
)
async def test_wrong_parameters_are_named(http, change, code, param):
    """400 with Stripe's code and the parameter; nothing is made, and the key stays free."""
    form = {"amount": "1467", "currency": "usd", **change}
    key = {"idempotency-key": f"wrong {change}"[:255]}
    before = (await http.get("/v1/payment_intents")).json()
    answer = await http.post("/v1/payment_intents", data=form, headers=key)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"]) == (400, "invalid_request_error")
    assert (error.get("code"), error["param"]) == (code, param)
    assert (await http.get("/v1/payment_intents")).json() == before
    right = {"amount": "1467", "currency": "usd"}
    assert (await http.post("/v1/payment_intents", data=right, headers=key)).status_code == 200


async def test_what_does_not_exist_is_missing(client):
    """404 resource_missing for an intent in the path."""
    for call in (
        client.v1.payment_intents.retrieve_async("pi_none"),
        client.v1.payment_intents.capture_async("pi_none"),
    ):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            await call
        assert (caught.value.http_status, caught.value.code) == (404, "resource_missing")


@pytest.mark.parametrize("key", ["sk_live_1234567890", "pk_test_1", "nonsense"])
async def test_only_test_keys_are_taken(url, key):
    """401 in Stripe's words for anything but sk_test_…; the key itself is not repeated."""
    async with stripe_client(url, key) as client:
        with pytest.raises(stripe.AuthenticationError) as caught:
            await client.v1.payment_intents.list_async()
    assert caught.value.http_status == 401
    assert key not in str(caught.value) or len(key) < 10


async def test_basic_authentication_and_none(url):
    """`curl -u sk_test_…:` works as at Stripe; no key at all is 401. Every answer has a request id."""
    async with httpx.AsyncClient(base_url=url) as http:
        assert (await http.get("/v1/payment_intents", auth=("sk_test_x", ""))).status_code == 200
        answer = await http.get("/v1/payment_intents")
        assert answer.status_code == 401
        assert answer.headers["request-id"].startswith("req_")


async def test_the_list_is_paged_newest_first_and_the_audit_reads_all_of_it(client, sandbox):
    """Pages neither repeat nor skip; the audit's sums are the ledger's."""
    made = []
    for number in range(25):
        capture = {"capture_method": "automatic"} if number % 5 else {}
        intent = await authorized(
            client, amount=100 + number, metadata={"order_id": f"ord_{number}"}, **capture
        )
        made.append(intent.id)
    listed, parameters = [], {"limit": 7}
    while True:
        page = await client.v1.payment_intents.list_async(parameters)
        listed += [intent.id for intent in page.data]
        if not page.has_more:
            break
        parameters["starting_after"] = listed[-1]
    assert listed == made[::-1]
    assert page.url == "/v1/payment_intents"
    audit = await audit_payments(sandbox.url)
    ledger = (await sandbox.state())["ledger"]["usd"]
    assert audit.intents == 25
    assert audit.captured == {"usd": ledger["captured"]}
    assert audit.authorized == {"usd": ledger["authorized"] - ledger["captured"]}
    assert audit.captures_per_order_max == 1
    assert audit.captured_per_order["ord_7"] == 107
    await authorized(client, capture_method="automatic", metadata={"order_id": "ord_7"})
    assert (await audit_payments(sandbox.url)).captures_per_order_max == 2


async def test_the_same_key_gives_the_first_answer_again(client, sandbox):
    """Successes and declines alike, marked as replayed; nothing is done a second time."""
    intents = client.v1.payment_intents
    first = await intents.create_async(CREATE, options("k-create"))
    again = await intents.create_async(CREATE, options("k-create"))
    assert again == first
    assert again.last_response.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.last_response.headers
    await intents.confirm_async(first.id, {}, options("k-confirm"))
    await intents.capture_async(first.id, {}, options("k-capture"))
    replayed = await intents.confirm_async(first.id, {}, options("k-confirm"))
    assert replayed.status == "requires_capture"  # the answer of then, not the state of now
    declined = {**CREATE, "payment_method": "pm_card_chargeDeclined", "confirm": True}
    seen = []
    for _ in range(2):
        with pytest.raises(stripe.CardError) as caught:
            await intents.create_async(declined, options("k-declined"))
        seen.append(caught.value)
    assert seen[0].json_body == seen[1].json_body
    assert seen[1].headers["idempotent-replayed"] == "true"
    assert (await audit_payments(sandbox.url)).intents == 2


async def test_a_key_belongs_to_its_parameters_and_endpoint(client):
    """Another amount or another endpoint under the same key: idempotency_error."""
    intents = client.v1.payment_intents
    first = await intents.create_async(CREATE, options("k"))
    with pytest.raises(stripe.IdempotencyError, match="same parameters"):
        await intents.create_async({**CREATE, "amount": 1}, options("k"))
    with pytest.raises(stripe.IdempotencyError, match="same endpoint"):
        await intents.confirm_async(first.id, {}, options("k"))
    reordered = dict(reversed(CREATE.items()))
    assert (await intents.create_async(reordered, options("k"))).id == first.id


async def test_a_refusal_of_state_is_kept_with_its_key(client):
    """As at Stripe: what the endpoint answered is answered again, even when it would work by now."""
    intents = client.v1.payment_intents
    intent = await intents.create_async(CREATE)
    for _ in range(2):
        with pytest.raises(stripe.InvalidRequestError) as caught:
            await intents.capture_async(intent.id, {}, options("early"))
        assert caught.value.code == "payment_intent_unexpected_state"
        if "idempotent-replayed" not in caught.value.headers:
            await intents.confirm_async(intent.id)
    assert (await intents.capture_async(intent.id, {}, options("later"))).status == "succeeded"


async def test_the_same_key_a_hundred_times_at_once_makes_one_intent(sandbox: SandboxProcess):
    """Answers are the first one's, or 409 while that is under way."""
    await sandbox.control(provider="payments", mode="late", operations=["create"], delay_ms=1_500, calls=1)
    form = {"amount": "500", "currency": "usd", "payment_method": "pm_card_visa", "confirm": "true"}
    headers = {"authorization": "Bearer sk_test_x", "idempotency-key": "rush"}
    async with httpx.AsyncClient(base_url=sandbox.url, headers=headers, timeout=60) as http:
        answers = await asyncio.gather(*(http.post("/v1/payment_intents", data=form) for _ in range(100)))
        done = [answer.json()["id"] for answer in answers if answer.status_code == 200]
        busy = [answer.json()["error"]["code"] for answer in answers if answer.status_code != 200]
        assert len(set(done)) == 1
        assert set(busy) == {"idempotency_key_in_use"}
        assert {answer.status_code for answer in answers} == {200, 409}
        later = await http.post("/v1/payment_intents", data=form)
        assert (later.json()["id"], later.headers["idempotent-replayed"]) == (done[0], "true")
    assert (await audit_payments(sandbox.url)).intents == 1
