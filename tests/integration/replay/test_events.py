"""Events of the past are read in order, a batch at a time, from wherever somebody stopped; all of them."""

import itertools

import asyncpg

from app.domain.upcasters import VERSIONS
from app.infra.postgres.replay_events import EventBatch, Wanted, count, event_batches
from tests.integration.replay.past import Past

ALL = Wanted(VERSIONS.types)


async def read(past: Past, wanted: Wanted, size: int, cursor: str | None = None) -> list[EventBatch]:
    """All batches behind a cursor."""
    async with past.database.connection() as connection:
        return [batch async for batch in event_batches(connection, wanted, cursor, size=size)]


def ids(batches: list[EventBatch]) -> list[str]:
    """The events in some batches."""
    return [event.id for batch in batches for event in batch.events]


async def test_every_event_is_read_once_whatever_the_size(past: Past):
    """In the order of subject and sequence; counted before."""
    await past.happens(4)
    rows = await past.database.fetch("SELECT subject, sequence FROM events ORDER BY 1, 2")
    expected = [f"{row['subject']}:{row['sequence']}" for row in rows]
    for size in (1, 7, 1000):
        assert ids(await read(past, ALL, size)) == expected
    async with past.database.connection() as connection:
        assert await count(connection, ALL) == len(expected)


async def test_reading_goes_on_behind_any_cursor(past: Past):
    """What was read up to a cursor and what is read behind it is everything."""
    await past.happens(3)
    batches = await read(past, ALL, 5)
    whole = ids(batches)
    for number, batch in enumerate(batches[:-1], 1):
        assert batch.cursor is not None
        assert ids(batches[:number]) + ids(await read(past, ALL, 4, batch.cursor)) == whole


async def test_only_what_is_wanted_is_read(past: Past):
    """By type, by time, by order."""
    await past.happens(4)
    accepted = Wanted(frozenset({"order.accepted.v1"}))
    assert [name.split(":")[1] for name in ids(await read(past, accepted, 3))] == ["1"] * 4
    rows = await past.database.fetch("SELECT subject, time FROM events WHERE sequence = 1 ORDER BY time")
    middle = rows[len(rows) // 2]["time"]
    before = ids(await read(past, Wanted(VERSIONS.types, until=middle), 6))
    after = ids(await read(past, Wanted(VERSIONS.types, since=middle), 6))
    assert before
    assert sorted(before + after) == sorted(ids(await read(past, ALL, 100)))
    order = next(row["subject"] for row in rows if row["subject"].startswith("ord_"))
    of_one = ids(await read(past, Wanted(VERSIONS.types, subject=order), 2))
    assert {name.split(":")[0] for name in of_one} == {order}
    assert ids(await read(past, Wanted(VERSIONS.types, last_subject=order), 2))[-1] == of_one[-1]


async def test_an_event_that_was_committed_late_is_not_skipped(past: Past, database_url):
    """It lies behind the place that was read when its transaction ends: the marks know, times do not."""
    await past.happens(3)
    await past.consume()
    replay = await past.ask("daily_summary")
    await past.until(replay, "reading")
    late = await asyncpg.connect(database_url)
    try:
        transaction = late.transaction()
        await transaction.start()
        await late.execute("""
            INSERT INTO orders SELECT (o).* FROM (SELECT jsonb_populate_record(o,
                '{"id": "ord_00000000000000000000000000", "version": 1}') AS o FROM orders o LIMIT 1) x""")
        await late.execute("""
            INSERT INTO events SELECT 'ord_00000000000000000000000000', sequence, type, time, correlation_id,
                traceparent, data, NULL, hash FROM events WHERE type = 'order.accepted.v1' LIMIT 1""")
        for _ in itertools.count():
            if (await past.one(replay)).cursor == "catching up":
                break
            await past.step(replay)
        await transaction.commit()
    finally:
        await late.close()
    await past.consume()
    shown = await past.carry(replay)
    assert (shown.state, shown.changes) == ("shown", 0)
    assert sum(row["accepted"] for row in await past.live("daily_summary")) == 4
