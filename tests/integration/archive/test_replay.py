"""A replay reads what has left the database in its archive: every event once, and the same rows come out."""

import pytest

from app.domain.errors import Unavailable
from app.domain.upcasters import VERSIONS
from app.infra.archive import replaying
from app.infra.postgres.replay_events import Wanted, count, event_batches
from tests.integration.archive.ages import Ages, month
from tests.integration.replay.past import Past

ALL = Wanted(VERSIONS.types)
GONE = (-5, -4, -3)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Months of several blocks."""
    monkeypatch.setattr("app.infra.archive.writing.BLOCK_EVENTS_MAX", 2)
    replaying._opened.clear()
    replaying._blocks.clear()


async def read(ages: Ages, wanted: Wanted, size: int, cursor: str | None = None):
    """All batches behind a cursor."""
    return [batch async for batch in event_batches(ages.connection, wanted, cursor, size=size)]


def ids(batches) -> list[str]:
    """The events in some batches."""
    return [event.id for batch in batches for event in batch.events]


async def drop(ages: Ages) -> None:
    """Three months leave."""
    await ages.archive(*GONE)
    await ages.drop(-2)


@pytest.mark.parametrize(
    "size", [pytest.param(1, marks=pytest.mark.full), 3, pytest.param(1000, marks=pytest.mark.full)]
)
async def test_every_event_is_read_once_and_each_subject_in_order(ages: Ages, size: int):
    """Those of the archive first; behind any cursor as from the beginning."""
    whole = sorted(ids(await read(ages, ALL, 1000)))
    assert len(whole) == await count(ages.connection, ALL)
    await drop(ages)
    batches = await read(ages, ALL, size)
    assert sorted(ids(batches)) == whole
    assert await count(ages.connection, ALL) == len(whole)
    for subject, chain in ages.chains.items():
        found = [name for name in ids(batches) if name.startswith(f"{subject}:")]
        assert found == [f"{subject}:{event.sequence}" for event in chain]
    for number in range(0, len(batches) - 1, 3):
        rest = await read(ages, ALL, 2, batches[number].cursor)
        assert ids(batches[: number + 1]) + ids(rest) == ids(batches)


@pytest.mark.parametrize(
    "wanted",
    [
        pytest.param(Wanted(VERSIONS.types, since=month(-4), until=month(-2)), marks=pytest.mark.full),
        Wanted(VERSIONS.types, since=month(-4).replace(hour=5), until=month(-3).replace(day=2)),
        Wanted(VERSIONS.types, subject="mug"),
        pytest.param(Wanted(VERSIONS.types, subject="bowl", since=month(-4)), marks=pytest.mark.full),
        pytest.param(Wanted(frozenset({"order.accepted.v1"})), marks=pytest.mark.full),
    ],
    ids=["months", "parts of months", "a subject", "a subject since", "a type"],
)
async def test_only_what_is_wanted_is_read(ages: Ages, wanted: Wanted):
    """As before it left."""
    before = sorted(ids(await read(ages, wanted, 4)))
    await drop(ages)
    assert sorted(ids(await read(ages, wanted, 4))) == before
    assert await count(ages.connection, wanted) == len(before)


async def test_a_projection_rebuilt_over_months_that_are_gone_is_the_same(ages: Ages):
    """To the row and to the hash, by the engine that rebuilds it."""
    past = Past(ages.database, batch_events=5)
    first = await past.run("analytics", is_applied=True)
    assert first.state == "applied"
    right = await past.live("analytics")
    assert len(right) > 10
    await drop(ages)
    await ages.connection.execute("DELETE FROM analytics_minutes")
    again = await past.run("analytics", is_applied=True)
    assert again.state == "applied", again.error
    assert await past.live("analytics") == right
    assert again.summary["rebuilt_hash"] == first.summary["rebuilt_hash"]
    assert again.done == again.total == first.total


@pytest.mark.full
async def test_an_archive_that_is_away_is_waited_for(ages: Ages):
    """The replay goes on when it is back."""
    await drop(ages)
    moved = ages.folder.rename(ages.folder.with_name("elsewhere"))
    with pytest.raises(Unavailable, match="archive"):
        await read(ages, ALL, 3)
    moved.rename(ages.folder)
    assert len(ids(await read(ages, ALL, 3))) == sum(map(len, ages.chains.values()))
