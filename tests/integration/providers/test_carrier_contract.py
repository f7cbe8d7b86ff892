"""What every adapter of the port `Carrier` does."""

import pytest

from app.domain.errors import Refused
from app.domain.fulfilment import FulfilmentLine, FulfilmentPlan
from app.domain.ports import Address
from app.domain.ports import ShipmentStatus as S

ADDRESS = Address("A. Name", "1 Street", "Town", "12345", "US")


def plan(name, warehouse="east"):
    """A parcel with two lines."""
    return FulfilmentPlan(f"ful_{name}_1", warehouse, (FulfilmentLine("tea", 2), FulfilmentLine("cup", 1)))


async def book(carrier, name, *, address=ADDRESS, warehouse="east"):
    """Book it."""
    return await carrier.book(plan(name, warehouse), address=address, correlation_id="c-1")


async def test_booking_is_idempotent_by_our_reference(carrier, name):
    """The same parcel again is the same shipment; another content is refused."""
    first = await book(carrier, name)
    assert (first.reference, first.status) == (f"ful_{name}_1", S.BOOKED)
    assert first.id
    assert first.tracking_number
    assert await book(carrier, name) == first
    assert await carrier.track(first.reference) == first
    with pytest.raises(Refused) as caught:
        await book(carrier, name, warehouse="west")
    assert caught.value.refusal.code == "booked-otherwise"


async def test_a_parcel_without_an_address_is_taken(carrier, name):
    """Somebody collects it."""
    assert (await book(carrier, name, address=None)).status is S.BOOKED


async def test_where_the_carrier_does_not_go_it_takes_nothing(carrier, name):
    """Refused with the carrier's code; it has never heard of the parcel."""
    with pytest.raises(Refused) as caught:
        await book(carrier, name, address=Address("A", "1", "T", "1", "XX"))
    assert caught.value.refusal.code == "undeliverable-address"
    assert await carrier.track(f"ful_{name}_1") is None


async def test_a_cancelled_parcel_stays_cancelled(carrier, name):
    """It cannot be released or booked again; cancelling again is nothing new."""
    reference = (await book(carrier, name)).reference
    for _ in range(2):
        cancelled = await carrier.cancel(reference)
        assert cancelled is not None
        assert cancelled.status is S.CANCELLED
    for call in (carrier.release(reference), book(carrier, name)):
        with pytest.raises(Refused) as caught:
            await call
        assert caught.value.refusal.code == "cancelled"


async def test_a_released_parcel_cannot_be_called_off(carrier, name):
    """Releasing again is nothing new."""
    reference = (await book(carrier, name)).reference
    for _ in range(2):
        assert (await carrier.release(reference)).status in (S.RELEASED, S.PICKED_UP, S.DELIVERED)
    with pytest.raises(Refused) as caught:
        await carrier.cancel(reference)
    assert caught.value.refusal.code == "already-released"


async def test_what_the_carrier_has_never_heard_of(carrier, name):
    """Nothing to call off or to track; it cannot be released."""
    assert await carrier.cancel(f"ful_{name}_1") is None
    assert await carrier.track(f"ful_{name}_1") is None
    with pytest.raises(Refused):
        await carrier.release(f"ful_{name}_1")
