"""A shop sold 12,000 of its 50,000 orders at a wrong price, and mends it while everything is killed."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from app.dev.servers import EmbeddedTemporal
from app.infra.postgres import replays
from app.infra.postgres.replays import Replay
from tests.integration.consumer.processes import running
from tests.integration.reprice.priced import RIGHT, Past, as_recorded, difference
from tests.integration.reprice.test_killed import BEHIND, GROUPS
from tests.integration.reprice.workers import ENVIRONMENT, Command, Worker, working

ORDERS, AFFECTED = 50_000, 12_000
RATE = "8000"
"""Orders a second: slow enough that a worker is killed in the middle, however late it is looked at."""
LATEST = "SELECT id FROM replays ORDER BY id DESC LIMIT 1"


@pytest.fixture
async def temporal(tmp_path: Path) -> AsyncIterator[EmbeddedTemporal]:
    """A Temporal of the test's own: nobody else's workflows are in it."""
    server = EmbeddedTemporal(tmp_path / "temporal", durable=False, follow=signal.SIGKILL)
    await server.start()
    yield server
    await server.stop()


async def kill_at(priced: Past, worker: Worker, *reached: Callable[[Replay], bool]) -> None:
    """Kill the worker each time the newest replay has come so far; it must live until then."""
    for is_reached in reached:
        while True:
            assert worker.is_alive(), worker.log()
            rows = await priced.database.fetch(LATEST)
            if rows and is_reached(await priced.replay(rows[0]["id"])):
                break
            await asyncio.sleep(0.01)
        await worker.kill()


def reads(share: float) -> Callable[[Replay], bool]:
    """Whether so much is read, and not all."""
    return lambda replay: replay.state == replays.READING and replay.done >= share * ORDERS


def applies(share: float) -> Callable[[Replay], bool]:
    """Whether so much is applied, and not all."""
    return lambda replay: replay.state == replays.APPLYING and replay.applied >= share * AFFECTED


@pytest.mark.full
@pytest.mark.timeout(600)
async def test_twelve_thousand_orders_are_mended_once_though_workers_are_killed_five_times(
    priced: Past, redis_url: str, temporal: EmbeddedTemporal, tmp_path: Path
):
    """What was shown is what was applied, each order once, each event once in each group; chains whole."""
    await priced.put(ORDERS, AFFECTED, marks=GROUPS)
    prices = tmp_path / "mended.csv"
    prices.write_text(f"sku,amount,currency\ncup,{RIGHT},USD\nnever-sold,1,EUR\n")
    span = ("--from", priced.since.isoformat(), "--to", priced.until.isoformat())
    ask = ("replay", "--handler", "reprice", "--prices", str(prices), *span, "--rate", RATE)
    async with (
        running(priced.url, redis_url, ENVIRONMENT=ENVIRONMENT),
        working(priced.url, redis_url, temporal) as worker,
    ):
        command = await Command(priced.url, *ask).start()
        await kill_at(priced, worker, reads(0.1), reads(0.6))
        code, said = await command.ends()
        assert code == 0, said
        assert re.search(r"reading: [\d,]+ of 50,000 events", said), said
        assert "50,000 events read, 12,000 rows differ" in said
        assert f"in sum  USD  total {difference(AFFECTED):+,}" in said
        replay = await priced.replay(re.search(r"rpl_\w+", said)[0])
        shown = as_recorded(replay, await priced.changes(replay))
        assert await priced.adjustments() == []

        command = await Command(priced.url, "replay", "--plan", replay.id).start()
        await kill_at(priced, worker, applies(0.1), applies(0.4), applies(0.8))
        code, said = await command.ends()
        assert code == 0, said
        assert re.search(r"applying: [\d,]+ of 12,000 changes", said), said
        assert worker.kills == 5
        assert await priced.adjustments() == shown
        async with asyncio.timeout(120):
            while (await priced.database.fetch(BEHIND, GROUPS))[0]["count"]:
                await asyncio.sleep(0.5)
    await everything_is_right(priced)


async def everything_is_right(priced: Past) -> None:
    """What the groups hold, and the chains."""
    counted = await priced.database.fetch(
        "SELECT measure, sum(value)::bigint FROM analytics_minutes GROUP BY 1 ORDER BY 1"
    )
    assert [tuple(row) for row in counted] == [
        ("price_adjusted", difference(AFFECTED)),
        ("price_adjustments", AFFECTED),
    ]
    events = await priced.database.fetch(
        "SELECT count(*), count(DISTINCT subject) AS subjects FROM events WHERE type = 'order.repriced.v1'"
    )
    assert tuple(events[0]) == (AFFECTED, AFFECTED)
    assert await priced.database.fetch("SELECT FROM dead_letters") == []
    audit = await Command(priced.url, "audit", "verify").start()
    code, said = await audit.ends()
    assert code == 0, said
    assert "all is as it was" in said
