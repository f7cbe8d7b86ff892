"""An event that cannot be handled holds back its subject only, is never lost, and is handled after all."""

import asyncio
from functools import partial

import msgspec
import pytest
from structlog.testing import capture_logs

from app.consumer import dead_letters as module
from app.consumer import dispatch
from app.consumer import effect as effects
from app.consumer.effect import Effect
from app.contracts.streams import FIELD, Envelope, shard_of, stream
from app.domain.money import Money
from app.infra.postgres.catalogue import Cause
from app.infra.postgres.dead_letters import WAITING, Chosen, DeadLetters
from tests.integration.consumer import readers
from tests.integration.consumer.conftest import SHARDS
from tests.integration.consumer.orders import SKU
from tests.integration.consumer.readers import nothing_pending, reading


@pytest.fixture
def relay(database_url, streams):
    """Publishes what waits."""
    return partial(readers.relay, database_url, streams)


@pytest.fixture
def letters(database) -> DeadLetters:
    """The dead letters."""
    return DeadLetters(database)


@pytest.fixture(autouse=True)
def quickly(monkeypatch):
    """Seconds become moments; errors are not painted for a terminal, which takes longer than the rest."""
    monkeypatch.setattr(module, "FIRST_S", 0.02)
    monkeypatch.setattr(module, "POLL_S", 0.05)
    with capture_logs() as said:
        yield said


class Poison:
    """A handler that fails for one subject, so many times or as long as it is told to."""

    def __init__(self, subject: str, error: Exception, times: int = 1_000_000) -> None:
        self.subject = subject
        self.error = error
        self.times = times
        self.is_bad = True
        self.tries = 0

    async def __call__(self, events, effects) -> None:
        """Fail, or not."""
        is_bad = self.is_bad and self.tries < self.times
        if is_bad and any(event.subject == self.subject for event in events):
            self.tries += 1
            raise self.error

    def in_group(self, group, *types: str):
        """The group with this handler behind its own."""
        table = {**group.handlers, **{kind: (*group.handlers[kind], self) for kind in types}}
        return msgspec.structs.replace(group, handlers=table)


async def in_state(letters, *states: str, count: int = 1):
    """Wait until so many letters are in these states, and no others."""
    async with asyncio.timeout(60):
        while True:
            found = await letters.page(0, 200)
            if len(found) == count and {letter.state for letter in found} <= set(states):
                return found
            await asyncio.sleep(0.02)


async def test_a_poison_event_in_a_hot_subject_holds_back_its_subject_only(
    orders, database, clients, group, relay, letters
):
    """Bounded attempts, then it waits with its error and stack; after the fix everything follows in order."""
    bad = await orders.accept()
    poison = Poison(bad.id, RuntimeError("cannot count this"))
    async with reading(database, clients, poison.in_group(group, "order.confirmed.v1")):
        bad = await orders.complete(bad)
        await orders.many(8)
        await relay()
        await nothing_pending(clients)
        (letter,) = await in_state(letters, "open")
        assert await orders.behind() == 1
        confirmed = letter.sequence
        assert (letter.subject, letter.type, letter.kind) == (bad.id, "order.confirmed.v1", "failed")
        assert letter.attempts == module.ATTEMPTS_MAX
        assert "cannot count this" in letter.error
        assert "in __call__" in letter.stack
        assert await mark_of(database, bad.id) == confirmed - 1
        assert await letters.counts(["projections", "webhooks"]) == {"projections": 1, "webhooks": 0}
        other = await orders.complete(await orders.accept())
        await relay()
        async with asyncio.timeout(60):
            while await mark_of(database, other.id) != other.version:
                await asyncio.sleep(0.02)
        poison.is_bad = False
        assert await letters.retry(Chosen(group="projections")) == [letter.id]
        await in_state(letters, "handled")
        await orders.caught_up()
    assert await letters.counts(["projections"]) == {"projections": 0}


async def test_a_poison_price_in_a_hot_sku_is_counted_once_after_the_fix(
    orders, database, clients, relay, letters
):
    """One of sixty prices cannot be counted, in another group: those before it are, those behind it wait."""
    group = dispatch.group("analytics", dispatch.ANALYTICS)
    kind, is_bad = "price.changed.v1", True

    async def fails(events, _) -> None:
        if is_bad and any(event.sequence == 30 for event in events):
            raise RuntimeError("cannot count this")

    broken = {**group.handlers, kind: (*group.handlers[kind], fails)}
    async with reading(database, clients, msgspec.structs.replace(group, handlers=broken)):
        for cents in range(59):  # the first price is from the beginning
            await orders.catalogue.put(SKU, "A disc", Money(2000 + cents, "USD"), Cause("corr"))
        await relay()
        await nothing_pending(clients, "analytics")
        (letter,) = await in_state(letters, "open")
        assert (letter.subject, letter.sequence) == (SKU, 30)
        counted = "SELECT sum(value) AS n FROM analytics_minutes WHERE measure = 'price_changes'"
        assert (await database.fetch(counted))[0]["n"] == 29
        is_bad = False
        await letters.retry()
        await in_state(letters, "handled")
        assert (await database.fetch(counted))[0]["n"] == 60


async def mark_of(database, subject: str) -> int:
    """How far the group has come."""
    rows = await database.fetch(
        "SELECT sequence FROM marks WHERE subject = $1 AND consumer_group = 'projections'", subject
    )
    return rows[0]["sequence"] if rows else 0


async def test_it_works_at_the_next_attempt(orders, database, clients, group, relay, letters):
    """A passing failure needs nobody."""
    order = await orders.accept()
    poison = Poison(order.id, RuntimeError("not yet"), times=4)
    async with reading(database, clients, poison.in_group(group, "order.accepted.v1")):
        await orders.complete(order)
        await relay()
        (letter,) = await in_state(letters, "handled")
        assert letter.attempts < module.ATTEMPTS_MAX
        await orders.caught_up()


async def test_a_second_poison_behind_the_first_is_a_letter_of_its_own(
    orders, database, clients, group, relay, letters
):
    """What is well between the two has its effect; what is discarded never has, and is told apart."""
    bad = await orders.complete(await orders.accept())
    first = Poison(bad.id, RuntimeError("first"))
    second = Poison(bad.id, RuntimeError("second"))
    broken = second.in_group(first.in_group(group, "order.accepted.v1"), "order.completed.v1")
    async with reading(database, clients, broken):
        await relay()
        (letter,) = await in_state(letters, "open")
        first.is_bad = False
        await letters.retry(Chosen(ids=(letter.id,)))
        handled, open_ = await in_state(letters, "handled", "open", count=2)
        assert (handled.state, open_.state, open_.type) == ("handled", "open", "order.completed.v1")
        assert await mark_of(database, bad.id) == open_.sequence - 1
        assert await letters.discard(Chosen(ids=(open_.id, handled.id))) == [open_.id]
        await in_state(letters, "handled", "discarded", count=2)
        assert await mark_of(database, bad.id) == bad.version
    counted = (await orders.summary())[0]
    expected = (await orders.expected())[0]
    assert counted == {**expected, "completed": 0}


async def test_a_handler_that_hangs_is_an_attempt(  # noqa: PLR0917
    orders, database, clients, group, relay, letters, monkeypatch
):
    """It ends after a time, its transaction with it, and others go on."""
    monkeypatch.setattr(effects, "HANDLER_DEADLINE_S", 0.2)
    bad = await orders.accept()

    async def hangs(events, _) -> None:
        if any(event.subject == bad.id for event in events):
            await asyncio.Event().wait()

    table = {**group.handlers, "order.accepted.v1": (hangs,)}
    async with reading(database, clients, msgspec.structs.replace(group, handlers=table)):
        await orders.many(4)
        await relay()
        await nothing_pending(clients)
        (letter,) = await in_state(letters, *WAITING)
        assert "HandlerHangsError" in letter.error
        assert await orders.behind() == 1


async def test_an_unknown_type_waits_for_a_process_that_knows_it(
    orders, database, clients, group, relay, letters
):
    """Set aside at once, not tried in vain; taken up by itself after the upgrade; nothing is lost."""
    older = msgspec.structs.replace(
        group, handlers={k: v for k, v in group.handlers.items() if k != "order.completed.v1"}
    )
    await orders.many(4)
    async with reading(database, clients, older):
        await relay()
        await nothing_pending(clients)
        found = await in_state(letters, "open", count=2)
        assert {(letter.kind, letter.type, letter.attempts) for letter in found} == {
            ("unknown", "order.completed.v1", 1)
        }
        await letters.retry()
        assert await orders.behind() == 2
    async with reading(database, clients, group):
        await in_state(letters, "handled", count=2)
        await orders.caught_up()


async def test_the_same_event_ten_times_has_one_effect(orders, database, clients, group, relay):
    """Late, too, and after everything that followed it."""
    await orders.many(8)
    await database.execute(
        "INSERT INTO event_outbox (subject, sequence)"
        " SELECT subject, sequence FROM event_outbox, generate_series(1, 9) ORDER BY random()"
    )
    async with reading(database, clients, group):
        await relay()
        await nothing_pending(clients)
        await orders.caught_up()


async def test_a_letter_that_somebody_else_closed_is_left_alone(
    orders, database, store, letters, group, relay
):
    """Two processes that try the same letter handle its event once."""
    bad = await orders.complete(await orders.accept())
    poison = Poison(bad.id, RuntimeError("no"))
    broken = Effect(poison.in_group(group, "order.confirmed.v1"), store)
    await module.SettingAside(broken, letters).apply(effects.Delivery(bad.id, bad.version))
    async with asyncio.timeout(60):
        while not (due := await letters.due("projections", tuple(group.handlers), 10)):
            await asyncio.sleep(0.01)
    well = Effect(group, store)
    tries = [well.apply([effects.Delivery(bad.id)], letters=due) for _ in range(4)]
    await asyncio.gather(*tries)
    await orders.caught_up()


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_stream_that_knows_more_than_postgresql_is_said_and_passed_over(  # noqa: PLR0917
    orders, database, clients, group, relay, letters, is_there
):
    """Of an order that is there, or of one that is not; what follows in PostgreSQL has its effect."""
    subject = (await orders.accept()).id if is_there else "ord_06dzpv7x2m8wq3k9n5t1r4c7j0"
    event = Envelope(
        id=f"{subject}:9",
        type="inventory.released.v1",
        source="/x",
        subject=subject,
        time="2026-01-31T12:00:00Z",
        sequence=9,
        correlationid="c",
        data=msgspec.Raw(b"{}"),
    )
    key = stream("test", shard_of(subject, SHARDS))
    await clients.writes.xadd(key, {FIELD: msgspec.json.encode(event)})
    async with reading(database, clients, group):
        (letter,) = await in_state(letters, "handled")
        assert "MissingEventsError" in letter.error
        await orders.many(4)
        await relay()
        await nothing_pending(clients)
        await orders.caught_up()
