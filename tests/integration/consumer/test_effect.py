"""Every event has its effect once and in order, whatever the streams do to it."""

import asyncio
import random

import msgspec
import pytest

from app.consumer.dispatch import groups
from app.consumer.effect import Delivery, Effect, MissingEventsError
from app.consumer.projections import Applied
from app.contracts.documents import encode_order
from app.contracts.streams import Envelope
from app.domain.events import TYPES
from app.infra.postgres.event_outbox import open_outbox
from app.infra.redis.documents import Documents
from app.infra.redis.streams import Entry

NOWHERE = Entry(0, b"0-1", b"")


async def log_of_record(database_url) -> list[Envelope]:
    """Every event in the order of its position."""
    async with open_outbox(database_url, "/holdfast/test") as outbox:
        return [event.envelope for event in (await outbox.waiting(100_000)).events]


def deliveries(events) -> list[Delivery]:
    """Some events as one batch."""
    found: dict[str, Delivery] = {}
    for event in events:
        found.setdefault(event.subject, Delivery(event.subject)).add(event, NOWHERE)
    return list(found.values())


async def test_lost_doubled_and_reordered_events_change_nothing(orders, effect, database_url):
    """The same summary comes out of any mess that ends with the last event of each subject."""
    await orders.many(40)
    events = await log_of_record(database_url)
    dice = random.Random(7)
    mess = [event for event in events for _ in range(dice.choice((0, 1, 1, 2)))]
    dice.shuffle(mess)
    last = {event.subject: event for event in events}
    while mess:
        size = dice.randint(1, 30)
        batch, mess = mess[:size], mess[size:]
        await effect.apply(deliveries(batch))
    await effect.apply(deliveries(last.values()))
    await orders.caught_up()


async def test_two_processes_with_the_same_events_apply_them_once(orders, effect, database_url):
    """Locked marks let one of them in at a time."""
    await orders.many(24)
    events = await log_of_record(database_url)

    async def apply_all(seed: int) -> None:
        dice = random.Random(seed)
        copy = list(events)
        while copy:
            size = dice.randint(1, 25)
            await effect.apply(deliveries(copy[:size]))
            copy = copy[size:]

    await asyncio.gather(*(apply_all(seed) for seed in range(4)))
    await orders.caught_up()


async def test_a_failing_batch_has_no_effect_at_all(orders, group, store, database_url):
    """Mark and effect are one transaction."""

    async def fails(events, effects):
        raise RuntimeError("no")

    broken = msgspec.structs.replace(group, handlers={**group.handlers, "order.completed.v1": (fails,)})
    await orders.complete(await orders.accept())
    await orders.accept()
    events = await log_of_record(database_url)
    with pytest.raises(RuntimeError):
        await Effect(broken, store).apply(deliveries(events))
    assert await orders.summary() == []
    assert await orders.behind() == 2


async def test_events_that_postgresql_does_not_have_are_a_loud_error(orders, effect):
    """A stream that knows more than the log of record means that a database was put back."""
    order = await orders.accept()
    for last in (5, 2**31 - 1):  # at once, however many there would have to be
        with pytest.raises(MissingEventsError, match=f"{order.id}:2"):
            await effect.apply([Delivery(order.id, last)])
    assert await orders.behind() == 1


async def test_the_document_of_every_order_is_written(orders, effect, clients, database_url):
    """Readers find the order as it is now, also when its events had their effect before."""
    order = await orders.complete(await orders.accept())
    events = await log_of_record(database_url)
    await effect.apply(deliveries(events))
    documents = Documents(clients, "test")
    assert await documents.get(order.id) == encode_order(order)
    await clients.writes.flushall()
    await effect.apply(deliveries(events))
    assert await documents.get(order.id) == encode_order(order)


def test_every_group_knows_every_kind_of_event():
    """One from which nothing follows there is passed over, not set aside as unknown."""
    for known in groups(_nothing, _nothing):
        assert set(known.handlers) == set(TYPES.values())


async def _nothing(_: Applied) -> None:
    """What is done after a commit."""
