"""Daily seals: each day that is over has one, made once, chained, and never changed."""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from app.consumer.patience import Patience
from app.consumer.seals import seal_days
from app.domain.seals import seal_hash
from app.infra.postgres import seals as module
from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.seals import PostgresSeals
from tests.integration.postgres.past import DAYS, TODAY, at, places, prices, sealed, store, verified

ONE_DAY = timedelta(days=1)


async def test_nothing_is_sealed_before_anything_has_happened(database: Database):
    """The first day of all is that of the first event."""
    assert await PostgresSeals(database).seal_next() is None


async def test_each_day_that_is_over_is_sealed_once_the_empty_ones_too(database: Database, other: Connection):
    """Until the first that is not over, or not for long enough; again nothing is left to do."""
    await store(other, prices("cup", 1, [at(DAYS[0], 0), at(DAYS[0], 23), at(DAYS[2])]))
    await store(other, prices("Zebra", 1, [at(DAYS[0], 1), datetime.now(UTC)]))
    made = await sealed(database)
    days = [DAYS[0] + n * ONE_DAY for n in range(len(made))]
    assert [seal.day for seal in made] == days
    assert made[-1].day in {TODAY - ONE_DAY, TODAY - 2 * ONE_DAY}  # before six in the morning, it settles yet
    assert [seal.events for seal in made[:4]] == [3, 0, 1, 0]
    # By code points, whatever the locale of the database.
    assert (made[0].first_event, made[0].last_event) == ("Zebra:1", "cup:2")
    assert (made[1].first_event, made[1].last_event) == (None, None)
    assert [seal.previous_seal for seal in made] == [None, *(seal.hash for seal in made[:-1])]
    assert await sealed(database) == []
    assert (await verified(other)).is_whole


async def test_a_seal_can_be_computed_by_anybody(database: Database, other: Connection):
    """From the columns alone, with SHA-256 and JSON."""
    await store(other, prices("cup", 1, [at(DAYS[0]), at(DAYS[0], 13)]))
    (seal, *_) = await sealed(database)
    rows = await other.fetch("SELECT subject, sequence, hash FROM events ORDER BY sequence")
    lines = "".join(f'["{x["subject"]}",{x["sequence"]},"{x["hash"].hex()}"]\n' for x in rows)
    assert seal.root == hashlib.sha256(lines.encode()).digest()
    instant = seal.sealed_at.astimezone(UTC).isoformat(timespec="microseconds")
    said = f'["{seal.day}",2,"cup:1","cup:2","{seal.root.hex()}","{instant}"]'
    assert seal.hash == hashlib.sha256(said.encode()).digest()


async def test_a_day_is_left_to_settle(database: Database, other: Connection):
    """A transaction that commits a little later than its events say is sealed with its day."""
    await store(other, prices("cup", 1, [at(TODAY - ONE_DAY)]))
    long_after = datetime.now(UTC) - at(TODAY, 0) + timedelta(hours=1)
    assert await PostgresSeals(database).seal_next(settle=long_after) is None
    assert await PostgresSeals(database).seal_next(settle=timedelta(0)) is not None
    assert await PostgresSeals(database).seal_next(settle=timedelta(0)) is None


async def test_whoever_leads_seals_what_is_due(database: Database, other: Connection):
    """The oldest first, until nothing is left; then it waits."""
    await store(other, prices("cup", 1, [at(DAYS[0])]))
    chore = asyncio.create_task(seal_days(PostgresSeals(database), Patience("test")))
    try:
        async with asyncio.timeout(30):
            while not await other.fetchval("SELECT count(*) FROM seals WHERE day = $1", DAYS[3]):
                await asyncio.sleep(0.01)
        assert not chore.done()
    finally:
        chore.cancel()
        await asyncio.wait({chore})
    assert (await verified(other)).is_whole


async def test_two_leaders_seal_a_day_once(database: Database, other: Connection):
    """One that believes it still leads does no harm."""
    await store(other, prices("cup", 1, [at(DAYS[0])]))
    made = await asyncio.gather(*(sealed(database) for _ in range(4)), return_exceptions=True)
    assert any(isinstance(seals, list) for seals in made)
    await sealed(database)
    verdict = await verified(other)
    assert verdict.is_whole
    assert verdict.seals == (await other.fetchval("SELECT count(*) FROM seals"))


async def test_the_database_refuses_to_change_or_delete_a_seal(database: Database, other: Connection):
    """As it does with events."""
    await store(other, prices("cup", 1, [at(DAYS[0])]))
    await sealed(database)
    for table in ("seals", "seal_leaves"):
        for change in ("UPDATE {} SET day = day", "DELETE FROM {}", "TRUNCATE {} CASCADE"):
            with pytest.raises(asyncpg.RaiseError, match="never changed or deleted"):
                await other.execute(change.format(table))


async def test_an_event_that_comes_after_its_day_was_sealed_is_named(
    database: Database, other: Connection, monkeypatch: pytest.MonkeyPatch
):
    """Though its chain is whole: wherever in the day it is, on an empty day, and before the first."""
    monkeypatch.setattr(module, "LEAF_EVENTS_MAX", 4)  # so that a day has several leaves, as large ones do
    days = [at(DAYS[1], hour) for hour in range(9)]
    first = {sku: prices(sku, 1, days) for sku in ("bowl", "cup")}
    for events in first.values():
        await store(other, events)
    await sealed(database)
    assert (await verified(other)).is_whole

    await store(other, prices("bowl", 10, [at(DAYS[1], 20)], first["bowl"][-1]))
    await store(other, prices("apple", 1, [at(DAYS[1])]))
    await store(other, prices("zebra", 1, [at(DAYS[1]), at(DAYS[2])]))
    await store(other, prices("early", 1, [at(DAYS[0])]))
    assert places((await verified(other)).found) == {
        ("unlike-its-seal", DAYS[1], None),
        ("unsealed", "apple", 1),
        ("unsealed", "bowl", 10),
        ("unsealed", "zebra", 1),
        ("unlike-its-seal", DAYS[2], None),
        ("unsealed", "zebra", 2),
        ("unsealed", "early", 1),
    }


def test_every_part_of_a_seal_counts():
    """None can be exchanged for another."""
    parts = (DAYS[0], 2, "a:1", "b:1", b"r", b"p", at(DAYS[1]))
    others = (DAYS[1], 3, "a:2", "b:2", b"s", None, at(DAYS[2]))
    changed = (seal_hash(*parts[:n], others[n], *parts[n + 1 :]) for n in range(len(parts)))
    assert len({seal_hash(*parts), *changed}) == len(parts) + 1
