"""Months leave the database as a whole once they lie in an archive and nobody needs them here; else not."""

import asyncio

import asyncpg
import pytest

from app.infra.archive.archiving import fault_of
from app.infra.archive.restoring import NotRestoredError, restore_month
from app.infra.postgres import retention
from app.infra.postgres.retention import RefusedError
from tests.integration.archive.ages import GROUPS, Ages, day, month
from tests.integration.postgres.past import prices, store, verified

ARCHIVED = (-5, -4, -3)


async def refused(ages: Ages, before: int = -3) -> str:
    """Why the first partition that may not go stays. Nothing is dropped."""
    held = await ages.held()
    with pytest.raises(RefusedError) as found:
        await ages.drop(before)
    assert await ages.held() == held
    return str(found.value)


async def test_what_is_archived_and_handled_leaves(ages: Ages):
    """Whole months, the oldest first; the rest is as it was."""
    await ages.archive(*ARCHIVED)
    dropped = await ages.drop(-2)
    assert [x.months for x in dropped] == [(day(n),) for n in ARCHIVED]
    assert sum(x.events for x in dropped) == sum(len(ages.events(n)) for n in ARCHIVED)
    assert await ages.held() == sum(len(chain) for chain in ages.chains.values()) - 18
    assert await ages.recorded() == {day(n): True for n in ARCHIVED}
    assert await ages.drop(-2) == []


@pytest.mark.full
async def test_what_is_in_no_archive_stays(ages: Ages):
    """However old it is."""
    assert f"{day(-5):%Y-%m} is in no archive" in await refused(ages)


async def test_what_cannot_be_read_back_now_stays(ages: Ages):
    """The archive is read wholly, each time: a file that is gone, or changed by a byte."""
    await ages.archive(*ARCHIVED)
    content = ages.file(-5).read_bytes()
    ages.file(-5).unlink()
    assert "cannot be read back" in await refused(ages)
    ages.file(-5).write_bytes(content[:-1] + b"x")
    assert "is not what was written" in await refused(ages)


@pytest.mark.full
async def test_one_good_archive_of_two_is_enough(ages: Ages):
    """The newest is damaged, an older one is not."""
    await ages.archive(*ARCHIVED)
    await ages.archive(*ARCHIVED, to=str(ages.folder / "copy"))
    (ages.folder / "copy" / ages.file(-5).name).unlink()
    (first, *_) = await ages.drop(-3)
    assert first.archives == (ages.folder.as_uri(),)


async def test_what_is_young_stays(ages: Ages):
    """Two months at least, whoever asks."""
    await ages.archive(-5, -4, -3, -2)
    (*_, young) = await retention.partitions_before(ages.connection, day(-1))
    assert young.name == f"events_{month(-2):%Y_%m}"
    with pytest.raises(RefusedError, match="less than 2 months ago"):
        await retention.drop(ages.connection, young, GROUPS, fault_of)
    assert all(p.ends for p in await retention.partitions_before(ages.connection, day(100)))


async def test_what_a_group_has_not_handled_stays(ages: Ages):
    """A mark that is behind the last event of one subject in it, or missing."""
    await ages.archive(*ARCHIVED)
    await ages.connection.execute(
        "UPDATE marks SET sequence = 2 WHERE consumer_group = 'webhooks' AND subject = 'cup'"
    )
    assert "webhooks has not handled every event of 1 subjects (one is cup)" in await refused(ages)
    await ages.connection.execute("DELETE FROM marks WHERE consumer_group = 'webhooks'")
    assert "webhooks has not handled every event of 2 subjects" in await refused(ages)


async def test_whoever_only_publishes_is_no_group(ages: Ages):
    """Relays have leases as groups have, and no marks."""
    insert = "INSERT INTO shard_leases (consumer_group, shard) VALUES ($1, 0)"
    await ages.connection.executemany(insert, [("relay/4",), ("accounting",)])
    assert await retention.groups_of(ages.connection, GROUPS) == sorted({*GROUPS, "accounting"})


async def test_what_is_a_dead_letter_stays(ages: Ages):
    """Somebody may still want it tried again."""
    await ages.archive(*ARCHIVED)
    insert = (
        "INSERT INTO dead_letters (consumer_group, subject, sequence, type, kind, state, error, stack)"
        " VALUES ('webhooks', 'cup', 2, 'x', 'failed', 'open', '', '')"
    )
    await ages.connection.execute(insert)
    assert "1 of its events are dead letters that wait" in await refused(ages)
    await ages.connection.execute("UPDATE dead_letters SET state = 'discarded'")
    assert len(await ages.drop(-4)) == 1


@pytest.mark.full
async def test_what_was_never_published_stays(ages: Ages):
    """It waits in the outbox: Redis was away for long."""
    await ages.archive(*ARCHIVED)
    await ages.connection.execute("INSERT INTO event_outbox (subject, sequence) VALUES ('cup', 1)")
    assert "1 of its events were never published" in await refused(ages)


@pytest.mark.full
async def test_what_a_replay_reads_stays(ages: Ages):
    """It has read a part of it here, and would not find the rest."""
    await ages.archive(*ARCHIVED)
    await ages.connection.execute(
        "INSERT INTO replays (id, handler, state) VALUES ('rep_1', 'days', 'reading')"
    )
    assert "a replay is under way (rep_1)" in await refused(ages)


@pytest.mark.full
async def test_what_came_after_it_was_archived_stays(ages: Ages):
    """An event of that month that is not in the archive."""
    await ages.archive(*ARCHIVED)
    late = prices("dish", 1, [month(-5) + (month(-4) - month(-5)) / 2])
    await store(ages.connection, late)
    await ages.connection.executemany(
        "INSERT INTO marks (consumer_group, subject, sequence) VALUES ($1, 'dish', 1)", [(g,) for g in GROUPS]
    )
    assert "it holds 7 events, its archive 6" in await refused(ages)


@pytest.mark.full
async def test_older_events_in_the_net_keep_what_is_younger(ages: Ages):
    """Chains begin at one moment: there is never a hole in them."""
    await ages.archive(*ARCHIVED)
    await store(ages.connection, prices("dish", 1, [month(-7)]))
    assert "1 older events lie in the net" in await refused(ages)


async def test_whoever_reads_is_not_cut_off_and_not_waited_for_long(ages: Ages, monkeypatch):
    """The partition goes once the reader is done; those who come meanwhile are let through in between."""
    monkeypatch.setattr(retention, "LOCK_TIMEOUT_MS", 50)
    monkeypatch.setattr(retention, "PAUSE_S", 0.05)
    await ages.archive(-5)
    reader = await asyncpg.connect(ages.url)
    try:
        async with reader.transaction():
            await reader.fetch("SELECT count(*) FROM events")
            dropping = asyncio.create_task(ages.drop(-4))
            refusals = 0
            while refusals < 3:  # it has tried, and waits
                assert not dropping.done()
                await ages.database.fetch("SELECT count(*) FROM events WHERE subject = 'cup'")
                refusals += 1
        assert len(await dropping) == 1
    finally:
        await reader.close()


async def test_whoever_is_killed_leaves_it_whole(ages: Ages):
    """The partition and its record go together, or stay together."""
    await ages.archive(-5)
    held = await ages.held()
    doomed = await asyncpg.connect(ages.url)
    (partition,) = await retention.partitions_before(doomed, day(-4))
    transaction = doomed.transaction()
    await transaction.start()
    await doomed.execute(f"DROP TABLE {partition.name}")
    doomed.terminate()
    assert await ages.held() == held
    assert await ages.recorded() == {day(-5): False}
    assert len(await ages.drop(-4)) == 1


async def test_what_was_dropped_cannot_be_forgotten(ages: Ages):
    """The record of an archive is kept like the events."""
    await ages.archive(-5)
    for statement in ("DELETE FROM event_archives", "TRUNCATE event_archives"):
        with pytest.raises(asyncpg.RaiseError):
            await ages.connection.execute(statement)


async def test_what_was_dropped_comes_back_as_it_was(ages: Ages):
    """The newest month first, as a partition like the others; its archive is kept, and it may go again."""
    before = await ages.connection.fetch("SELECT * FROM events ORDER BY subject, sequence")
    await ages.archive(*ARCHIVED)
    await ages.drop(-2)
    with pytest.raises(NotRestoredError, match=f"{day(-3):%Y-%m} has to come back first"):
        await restore_month(ages.connection, day(-4), None, lambda *_: None)
    for number in (-3, -4, -5):
        assert (await restore_month(ages.connection, day(number), None, lambda *_: None)).month == day(number)
    assert await ages.connection.fetch("SELECT * FROM events ORDER BY subject, sequence") == before
    assert await ages.recorded() == {day(n): False for n in ARCHIVED}
    assert (await verified(ages.connection)).is_whole
    for statement in ("DELETE FROM {}", "UPDATE {} SET hash = hash", "TRUNCATE {}"):
        with pytest.raises(asyncpg.RaiseError):
            await ages.connection.execute(statement.format(f"events_{month(-4):%Y_%m}"))
    with pytest.raises(NotRestoredError, match="not among the months"):
        await restore_month(ages.connection, day(-4), None, lambda *_: None)
    assert len(await ages.drop(-2)) == 3


async def test_what_was_there_before_partitions_leaves_as_one(ages: Ages):
    """All its months are archived, or it stays."""
    old, new = (f"events_{month(n):%Y_%m}" for n in (-5, -4))
    whole = f"events_until_{month(-4):%Y_%m}"
    await ages.connection.execute(
        f"SELECT make_events_table('{whole}'); INSERT INTO {whole} SELECT * FROM {old};"
        f"INSERT INTO {whole} SELECT * FROM {new}; DROP TABLE {old}; DROP TABLE {new};"
        f"ALTER TABLE events ATTACH PARTITION {whole} FOR VALUES FROM (MINVALUE) TO ('{month(-3)}')"
    )
    await ages.archive(-4)
    assert f"{day(-5):%Y-%m} is in no archive" in await refused(ages)
    await ages.archive(-5)
    (dropped,) = await ages.drop(-3)
    assert (dropped.months, dropped.events) == ((day(-5), day(-4)), 12)
    assert await ages.recorded() == {day(-5): True, day(-4): True}
    assert (await verified(ages.connection)).is_whole
