"""Misbehaviour on request, and that what each mode says is what happens."""

import asyncio

import httpx
import pytest
import stripe

from app.dev.sandbox.audit import audit_payments
from app.dev.sandbox.http import Response
from tests.integration.sandbox.test_carrier import BOOKING, booked_and_released

FORM = {
    "amount": "700",
    "currency": "usd",
    "payment_method": "pm_card_visa",
    "confirm": "true",
    "metadata[order_id]": "ord_1",
}


async def create(http, key: str = "k", timeout_s: float = 60) -> httpx.Response:
    """Ask for a charge."""
    headers = {"idempotency-key": key}
    return await http.post("/v1/payment_intents", data=FORM, headers=headers, timeout=timeout_s)


async def intents(sandbox) -> int:
    """How many intents the provider has."""
    return (await audit_payments(sandbox.url)).intents


async def until_hit(sandbox) -> None:
    """Wait until the one fault that was asked for has met somebody."""
    async with asyncio.timeout(60):
        while not (await sandbox.state())["faults"][0]["hits"]:
            await asyncio.sleep(0.01)


async def unanswered(sandbox, asking: asyncio.Task[httpx.Response], then: str) -> None:
    """Whoever asks is cut off, or waits until it gives up."""
    await until_hit(sandbox)
    if then == "close":
        with pytest.raises(httpx.TransportError):
            await asking
    else:
        assert not (await asyncio.wait((asking,), timeout=0.2))[0]
        asking.cancel()


async def test_refused_connections_do_no_work(sandbox, http):
    """The connection is reset; nothing happened; the other provider goes on."""
    await sandbox.control(provider="payments", mode="refuse")
    with pytest.raises(httpx.TransportError):
        await create(http)
    assert (await http.get("/v1/shipments/none")).status_code == 404
    await sandbox.heal()
    assert await intents(sandbox) == 0
    assert (await create(http)).status_code == 200


async def test_500_is_not_stored_and_comes_before_the_work(sandbox, http):
    """The same key works once the provider is well again."""
    await sandbox.control(provider="payments", mode="error_500", operations=["create"], calls=2)
    for _ in range(2):
        answer = await create(http)
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "api_error")
    assert await intents(sandbox) == 0
    answer = await create(http)
    assert (answer.status_code, "idempotent-replayed" in answer.headers) == (200, False)


@pytest.mark.parametrize(("after_work", "made"), [(False, 0), (True, 1)])
async def test_a_stored_500_is_the_keys_answer_for_ever(sandbox, http, after_work, made):
    """Replayed, marked as such, even when the provider is well; only another key helps."""
    await sandbox.control(provider="payments", mode="error_500_stored", calls=1, after_work=after_work)
    first = await create(http)
    again = await create(http)
    assert (first.status_code, again.status_code) == (500, 500)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert await intents(sandbox) == made
    assert (await create(http, "k:2")).status_code == 200


async def test_429_is_a_rate_limit_to_the_library(sandbox, client):
    """In Stripe's words."""
    await sandbox.control(provider="payments", mode="error_429", calls=1)
    with pytest.raises(stripe.RateLimitError):
        await client.v1.payment_intents.list_async()


async def test_late_answers_come_after_the_work_and_hold_their_key(sandbox, http):
    """A client that gave up finds the key in use, and then the first answer."""
    await sandbox.control(provider="payments", mode="late", calls=1, delay_ms=4_000)
    asking = asyncio.create_task(create(http))
    await until_hit(sandbox)
    asking.cancel()
    while await intents(sandbox) < 1:
        await asyncio.sleep(0.02)
    assert (await create(http)).json()["error"]["code"] == "idempotency_key_in_use"
    while (answer := await create(http)).status_code == 409:
        await asyncio.sleep(0.02)
    assert answer.headers["idempotent-replayed"] == "true"
    assert await intents(sandbox) == 1


@pytest.mark.parametrize("then", ["silence", "close"])
async def test_lost_does_the_work_and_never_answers(sandbox, http, then):
    """The charge is there; the same key tells of it; it is the only one."""
    await sandbox.control(provider="payments", mode="lost", calls=1, then=then)
    await unanswered(sandbox, asyncio.create_task(create(http)), then)
    async with asyncio.timeout(60):
        while (await audit_payments(sandbox.url)).captured != {"usd": 700}:
            await asyncio.sleep(0.02)
    answer = await create(http)
    assert (answer.status_code, answer.headers["idempotent-replayed"]) == (200, "true")
    assert (await audit_payments(sandbox.url)).captures_per_order == {"ord_1": 1}


@pytest.mark.parametrize("then", ["silence", "close"])
async def test_silent_does_nothing_and_never_answers(sandbox, http, then):
    """No work, no answer."""
    await sandbox.control(provider="payments", mode="silent", calls=1, then=then)
    await unanswered(sandbox, asyncio.create_task(create(http)), then)
    assert await intents(sandbox) == 0
    assert "idempotent-replayed" not in (await create(http)).headers


async def test_a_share_of_calls_fails_repeatably(sandbox, http):
    """The seed decides which ones."""
    seen = []
    for _ in range(2):
        await sandbox.heal()
        await sandbox.control(provider="payments", mode="error_500", operations=["list"], share=0.3, seed=11)
        seen.append([(await http.get("/v1/payment_intents")).status_code for _ in range(60)])
    assert seen[0] == seen[1]
    assert 8 <= seen[0].count(500) <= 28
    (fault,) = (await sandbox.state())["faults"]
    assert fault["hits"] == seen[0].count(500)


async def test_the_carrier_misbehaves_in_the_same_ways(sandbox, http):
    """Refuse, fail, answer late, lose the answer, keep silent; booking stays once per reference."""
    path = "/v1/shipments/ful_1"
    for mode in ("refuse", "silent", "error_500", "error_429"):
        await sandbox.control(provider="carrier", mode=mode, operations=["book"], calls=1, then="close")
        try:
            assert (await http.put(path, json=BOOKING)).status_code in (500, 429)
        except httpx.TransportError:
            assert mode in ("refuse", "silent")
        assert (await http.get(path)).status_code == 404
    await sandbox.control(provider="carrier", mode="lost", operations=["book"], calls=1, then="close")
    with pytest.raises(httpx.TransportError):
        await http.put(path, json=BOOKING)
    assert (await http.get(path)).json()["status"] == "booked"
    await sandbox.control(provider="carrier", mode="late", operations=["track"], calls=1, delay_ms=3_000)
    with pytest.raises(httpx.TimeoutException):
        await http.get(path, timeout=0.1)
    assert (await http.put(path, json=BOOKING)).status_code == 200


async def test_muted_webhooks_are_never_sent(start, receiver):
    """The parcel moves, nobody is told; afterwards reports come again, of new things only."""
    sandbox = await start(receiver.url)
    await sandbox.control(provider="webhooks", mode="mute")
    await booked_and_released(sandbox, "ful_1")
    while (state := await sandbox.state())["shipments"] != {"delivered": 1} or state["webhooks_waiting"]:
        await asyncio.sleep(0.02)
    await sandbox.heal()
    await booked_and_released(sandbox, "ful_2")
    await receiver.until(lambda: len(receiver.taken("ful_2")) == 2)
    assert receiver.taken("ful_1") == []


async def test_duplicated_webhooks_come_twice_under_one_id(start, receiver):
    """Both copies in their place."""
    sandbox = await start(receiver.url)
    await sandbox.control(provider="webhooks", mode="duplicate")
    await booked_and_released(sandbox, "ful_1")
    await receiver.until(lambda: len(receiver.received) == 4)
    assert [one.type.rpartition(".")[2] for one in receiver.received] == [
        *("picked_up", "picked_up"),
        *("delivered", "delivered"),
    ]
    assert len({one.headers["webhook-id"] for one in receiver.received}) == 2


async def test_a_bad_signature_is_repeated_with_a_good_one(start, receiver):
    """The receiver refuses the first; the same report comes again, rightly signed."""
    sandbox = await start(receiver.url)
    await sandbox.control(provider="webhooks", mode="bad_signature", operations=["picked_up"], calls=1)
    answers = [Response(401, b"{}"), Response(204, b""), Response(204, b"")]
    receiver.answer = lambda _reference, _kind: answers.pop(0)
    await booked_and_released(sandbox, "ful_1")
    await receiver.until(lambda: len(receiver.taken("ful_1")) == 2)
    first, second = receiver.received[:2]
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]


@pytest.mark.parametrize(
    "body",
    [
        {"provider": "payments", "mode": "dance"},
        {"provider": "carrier", "mode": "error_500_stored"},
        {"provider": "payments", "mode": "refuse", "operations": ["book"]},
        {"provider": "payments", "mode": "refuse", "calls": 0},
        {"provider": "payments", "mode": "refuse", "share": 1.5},
        {"provider": "payments", "mode": "refuse", "colour": "red"},
        {"provider": "mail", "mode": "refuse"},
    ],
)
async def test_a_wrong_order_to_misbehave_is_refused(http, body):
    """400, and nothing is in force."""
    assert (await http.post("/control", json=body)).status_code == 400
    assert (await http.get("/control")).json()["faults"] == []


async def test_a_browser_cannot_make_it_misbehave(http):
    """Only JSON is taken, which a foreign page cannot send without asking."""
    body = '{"provider": "payments", "mode": "refuse"}'
    answer = await http.post("/control", content=body, headers={"content-type": "text/plain"})
    assert answer.status_code == 415


async def test_reset_takes_back_one_provider_or_all_and_the_delays(sandbox, http):
    """By DELETE /control, with and without a provider."""
    await sandbox.control(provider="payments", mode="error_500")
    await sandbox.control(provider="carrier", mode="error_500")
    await sandbox.delays(pickup_ms=5, delivery_ms=6)
    state = (await http.delete("/control", params={"provider": "payments"})).json()
    assert [fault["provider"] for fault in state["faults"]] == ["carrier"]
    state = await sandbox.heal()
    assert (state["faults"], state["delays"]) == ([], {"pickup_ms": 50, "delivery_ms": 100})
