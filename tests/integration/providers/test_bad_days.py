"""What the adapters of production make of a provider that misbehaves."""

import asyncio

import pytest

from app.dev.sandbox.audit import audit_payments
from app.domain.errors import KeyWornOut, Refused, Unavailable
from app.domain.ports import IntentStatus as S
from app.infra.carriers.http import HttpCarrier
from app.infra.payments.stripe import StripePayments
from tests.integration.providers.test_carrier_contract import book
from tests.integration.providers.test_payments_contract import authorized, created

ANSWERLESS = [
    {"mode": "refuse"},
    {"mode": "error_500"},
    {"mode": "error_429"},
    {"mode": "silent", "then": "close"},
    {"mode": "lost", "then": "close"},
]


@pytest.mark.parametrize("fault", ANSWERLESS, ids=lambda fault: fault["mode"])
@pytest.mark.parametrize("operation", ["create", "confirm", "capture"])
async def test_no_answer_is_unavailable_and_the_same_key_goes_on(
    stripe_payments, sandbox, name, operation, fault
):
    """Whether the work was done or not: asked again, there is one intent and one capture."""
    await sandbox.control(provider="payments", operations=[operation], calls=1, **fault)
    seen = []

    async def insisting(call):
        try:
            return await call()
        except Unavailable as unavailable:
            seen.append((type(unavailable), unavailable.service))
            return await call()

    intent = await insisting(lambda: created(stripe_payments, name))
    held = await insisting(lambda: stripe_payments.confirm(intent.id, key=f"pay:{name}:confirm:1"))
    assert held.status is S.AUTHORIZED
    taken = await insisting(
        lambda: stripe_payments.capture(intent.id, amount=1467, key=f"pay:{name}:capture:1")
    )
    assert (taken.status, taken.captured) == (S.CAPTURED, 1467)
    assert seen == [(Unavailable, "payments")]
    audit = await audit_payments(sandbox.url)
    assert audit.intents_per_order[f"ord_{name}"] == 1
    assert audit.captures_per_order[f"ord_{name}"] == 1


async def test_silence_ends_at_the_deadline_and_retrieve_tells_the_truth(sandbox, name):
    """The work was done and never answered: the stored id is enough to find out."""
    payments = StripePayments("sk_test_x", api_base=sandbox.url, call_timeout_s=0.3)
    intent = await created(payments, name)
    await sandbox.control(provider="payments", mode="lost", operations=["confirm"], calls=1)
    with pytest.raises(Unavailable):
        await payments.confirm(intent.id, key=f"pay:{name}:confirm:1")
    assert (await payments.retrieve(intent.id)).status is S.AUTHORIZED
    await payments.aclose()


@pytest.mark.parametrize("after_work", [False, True])
async def test_a_replayed_failure_wears_its_key_out(stripe_payments, sandbox, name, after_work):
    """The first 500 is an unknown outcome; the same one again is not: the next key finds what was done."""
    intent = await created(stripe_payments, name)
    await sandbox.control(
        provider="payments", mode="error_500_stored", operations=["confirm"], calls=1, after_work=after_work
    )
    with pytest.raises(Unavailable) as caught:
        await stripe_payments.confirm(intent.id, key=f"pay:{name}:confirm:1")
    assert not isinstance(caught.value, KeyWornOut)
    with pytest.raises(KeyWornOut):
        await stripe_payments.confirm(intent.id, key=f"pay:{name}:confirm:1")
    held = await stripe_payments.confirm(intent.id, key=f"pay:{name}:confirm:2")
    assert held.status is S.AUTHORIZED


async def test_a_key_in_use_is_unavailable_for_now(stripe_payments, sandbox, name):
    """The first call is still under way: asked again later, it is that call's answer."""
    await sandbox.control(provider="payments", mode="late", operations=["create"], calls=1, delay_ms=300)
    first = asyncio.create_task(created(stripe_payments, name))
    while not (await sandbox.state())["faults"][0]["hits"]:
        await asyncio.sleep(0.01)
    with pytest.raises(Unavailable):
        await created(stripe_payments, name)
    intent = await first
    assert await created(stripe_payments, name) == intent


async def test_a_wrong_key_of_ours_is_refused(sandbox, name):
    """No attempt will change it; the key is not repeated in the words."""
    payments = StripePayments("pk_wrong_1234567890", api_base=sandbox.url)
    with pytest.raises(Refused) as caught:
        await created(payments, name)
    assert caught.value.refusal.code == "authentication"
    assert "wrong_1234" not in caught.value.refusal.detail
    await payments.aclose()


async def test_a_provider_that_is_gone_is_unavailable(sandbox, name):
    """Nothing listens there."""
    payments = StripePayments("sk_test_x", api_base="http://127.0.0.1:1")
    carrier = HttpCarrier("http://127.0.0.1:1")
    with pytest.raises(Unavailable):
        await created(payments, name)
    with pytest.raises(Unavailable) as caught:
        await book(carrier, name)
    assert caught.value.service == "shipping"
    await payments.aclose()
    await carrier.aclose()


@pytest.mark.parametrize("fault", ANSWERLESS, ids=lambda fault: fault["mode"])
async def test_a_carrier_without_an_answer_is_asked_again(http_carrier, sandbox, name, fault):
    """Booking and releasing are idempotent by reference."""
    for operation, call in (
        ("book", lambda: book(http_carrier, name)),
        ("release", lambda: http_carrier.release(f"ful_{name}_1")),
        ("track", lambda: http_carrier.track(f"ful_{name}_1")),
    ):
        await sandbox.control(provider="carrier", operations=[operation], calls=1, **fault)
        with pytest.raises(Unavailable):
            await call()
        assert (await call()).reference == f"ful_{name}_1"


async def test_many_calls_at_once_share_a_few_connections(sandbox, name):
    """More callers than connections wait their turn; each gets its own answer."""
    payments = StripePayments("sk_test_x", api_base=sandbox.url, connections_max=4)
    held = await asyncio.gather(
        *(authorized(payments, f"{name}-{number}", amount=100 + number) for number in range(60))
    )
    assert [intent.amount for intent in held] == [100 + number for number in range(60)]
    await payments.aclose()
