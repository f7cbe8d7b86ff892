"""What every adapter of the port `Payments` does."""

import asyncio

import pytest

from app.domain.errors import Declined, Refused
from app.domain.ports import IntentStatus as S


async def created(payments, name, *, amount=1467, method="pm_card_visa"):
    """An intent, unconfirmed."""
    return await payments.create(
        order_id=f"ord_{name}",
        amount=amount,
        currency="USD",
        payment_method=method,
        correlation_id="c-1",
        key=f"pay:{name}:create:1",
    )


async def authorized(payments, name, **changes):
    """An intent whose money is held."""
    intent = await created(payments, name, **changes)
    return await payments.confirm(intent.id, key=f"pay:{name}:confirm:1")


async def captured(payments, name):
    """An intent whose money is taken."""
    intent = await authorized(payments, name)
    return await payments.capture(intent.id, amount=intent.amount, key=f"pay:{name}:capture:1")


async def test_money_is_held_by_confirm_and_taken_by_capture(payments, name):
    """Each step answers with the intent as it then is, and retrieve agrees."""
    first = await created(payments, name)
    assert (first.status, first.amount, first.captured) == (S.UNCONFIRMED, 1467, 0)
    held = await payments.confirm(first.id, key=f"pay:{name}:confirm:1")
    assert (held.status, held.captured) == (S.AUTHORIZED, 0)
    assert await payments.retrieve(first.id) == held
    taken = await payments.capture(first.id, amount=1467, key=f"pay:{name}:capture:1")
    assert (taken.status, taken.captured, taken.refunded) == (S.CAPTURED, 1467, 0)
    assert await payments.retrieve(first.id) == taken


async def test_the_same_key_is_the_same_intent(payments, name):
    """However often, also at once."""
    first = await created(payments, name)
    for _ in range(3):
        assert (await created(payments, name)).id == first.id
    assert (await created(payments, name + "x")).id != first.id


async def test_every_step_can_be_asked_for_again(payments, name):
    """With the same key, and with another one: nothing happens twice."""
    taken = await captured(payments, name)
    for number in (1, 2):
        again = await payments.capture(taken.id, amount=1467, key=f"pay:{name}:capture:{number}")
        assert (again.status, again.captured) == (S.CAPTURED, 1467)
    late = await payments.confirm(taken.id, key=f"pay:{name}:confirm:2")
    assert late.status is S.CAPTURED


@pytest.mark.parametrize(
    ("method", "code", "decline_code"),
    [
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
        ("pm_card_authenticationRequired", "authentication_required", "authentication_required"),
    ],
)
async def test_a_declined_card_says_why_each_time_it_is_asked(payments, name, method, code, decline_code):
    """The provider's codes and a sentence; the intent tells the same afterwards and can be given up."""
    intent = await created(payments, name, method=method)
    for _ in range(2):
        with pytest.raises(Declined) as caught:
            await payments.confirm(intent.id, key=f"pay:{name}:confirm:1")
        assert (caught.value.code, caught.value.decline_code) == (code, decline_code)
        assert caught.value.message
    known = await payments.retrieve(intent.id)
    assert (known.status, known.code, known.decline_code) == (S.DECLINED, code, decline_code)
    assert (await payments.void(intent.id, key=f"pay:{name}:void:1")).status is S.VOIDED


async def test_an_unknown_payment_method_is_declined_at_once(payments, name):
    """Nothing can be charged with it."""
    with pytest.raises(Declined) as caught:
        await created(payments, name, method="pm_nobody_knows")
    assert caught.value.code == "resource_missing"


async def test_void_lets_go_what_is_held_or_was_never_held(payments, name):
    """And again; a voided intent cannot be confirmed."""
    held = await authorized(payments, name)
    for number in (1, 1, 2):
        assert (await payments.void(held.id, key=f"pay:{name}:void:{number}")).status is S.VOIDED
    assert (await payments.capture(held.id, amount=1467, key=f"pay:{name}:capture:1")).captured == 0
    fresh = await created(payments, name + "x")
    assert (await payments.void(fresh.id, key=f"pay:{name}x:void:1")).status is S.VOIDED
    assert (await payments.confirm(fresh.id, key=f"pay:{name}x:confirm:1")).status is S.VOIDED


async def test_what_is_captured_is_not_voided_but_refunded(payments, name):
    """Void answers with the captured intent; refund gives all back, once."""
    taken = await captured(payments, name)
    still = await payments.void(taken.id, key=f"pay:{name}:void:1")
    assert (still.status, still.captured) == (S.CAPTURED, 1467)
    for number in (1, 1, 2):
        back = await payments.refund(taken.id, amount=1467, key=f"pay:{name}:refund:{number}")
        assert (back.status, back.captured, back.refunded) == (S.CAPTURED, 1467, 1467)
    assert await payments.retrieve(taken.id) == back


async def test_parts_are_given_back_and_no_more_than_was_taken(payments, name):
    """Each part has a key of its own."""
    taken = await captured(payments, name)
    back = await payments.refund(taken.id, amount=467, key=f"pay:{name}:refund:1")
    assert back.refunded == 467
    with pytest.raises(Refused):
        await payments.refund(taken.id, amount=1001, key=f"pay:{name}:refund:2")
    assert (await payments.retrieve(taken.id)).refunded == 467


async def test_mistakes_of_ours_are_refused_for_good(payments, name):
    """An intent that does not exist, more than is held, a key that was used for something else."""
    with pytest.raises(Refused):
        await payments.retrieve("pi_none")
    with pytest.raises(Refused):
        await payments.capture("pi_none", amount=1, key=f"pay:{name}:capture:none")
    held = await authorized(payments, name)
    with pytest.raises(Refused):
        await payments.capture(held.id, amount=1468, key=f"pay:{name}:capture:1")
    with pytest.raises(Refused):
        await created(payments, name, amount=1)


async def test_capture_against_void_at_once_has_one_winner(payments, name):
    """Whoever came second is told how it is."""
    for number in range(10):
        held = await authorized(payments, f"{name}-{number}")
        one, other = await asyncio.gather(
            payments.capture(held.id, amount=1467, key=f"pay:{name}-{number}:capture:1"),
            payments.void(held.id, key=f"pay:{name}-{number}:void:1"),
        )
        assert one.status is other.status
        assert one.status in (S.CAPTURED, S.VOIDED)
