"""A price list is applied by processes that are killed, and beside consumers: each order and event once."""

import asyncio

from app.contracts import streams
from app.infra.postgres import replays
from app.infra.postgres.replays import Replay
from tests.integration.consumer.processes import running
from tests.integration.reprice.carrier import CHANGES_AT_ONCE, killed_when
from tests.integration.reprice.priced import Past, as_recorded, difference

ORDERS, AFFECTED = 1_000, 300
RATE = 700
"""Orders a second: slow enough that a process is killed in the middle, however late it is looked at."""
GROUPS = sorted(value for name, value in vars(streams).items() if name.startswith("GROUP_"))
BEHIND = """
SELECT count(*) FROM orders o CROSS JOIN unnest($1::text[]) AS g
LEFT JOIN marks m ON m.subject = o.id AND m.consumer_group = g WHERE m.sequence IS DISTINCT FROM o.version
"""


def is_amid_reading(replay: Replay) -> bool:
    """Whether some orders are read, and not all."""
    return replay.state == replays.READING and replay.done >= ORDERS // 4


def is_amid_applying(replay: Replay) -> bool:
    """Whether some orders are adjusted, and not all."""
    return replay.state == replays.APPLYING and replay.applied >= AFFECTED // 4


async def test_killed_in_both_halves_every_order_is_adjusted_once(priced: Past):
    """What the killed processes committed stays, what they did not is done by the next."""
    await priced.put(ORDERS, AFFECTED)
    replay = await priced.ask(is_applied=True, rate_per_s=RATE)
    reading = await killed_when(priced, replay.id, is_amid_reading)
    assert reading.state == replays.READING
    assert reading.done < ORDERS
    applying = await killed_when(priced, replay.id, is_amid_applying)
    assert applying.state == replays.APPLYING
    assert applying.applied % CHANGES_AT_ONCE == 0
    assert applying.applied == len(await priced.adjustments()) < AFFECTED
    await priced.database.execute("UPDATE replays SET rate_per_s = NULL")
    replay = await priced.carry(replay.id)
    assert (replay.state, replay.done, replay.changes, replay.applied) == (
        "applied",
        ORDERS,
        AFFECTED,
        AFFECTED,
    )
    assert replay.summary["sums"] == {"USD": {"total": difference(AFFECTED)}}
    assert await priced.adjustments() == as_recorded(replay, await priced.changes(replay))


async def test_with_consumers_running_each_group_has_each_event_once(priced: Past, redis_url: str):
    """The sums that they keep come to what was shown, to the cent."""
    await priced.put(ORDERS // 2, AFFECTED // 2, marks=GROUPS)
    async with running(priced.url, redis_url) as consumer:
        replay = await priced.shown(is_applied=True)
        async with asyncio.timeout(60):
            while (await priced.database.fetch(BEHIND, GROUPS))[0]["count"]:
                await asyncio.sleep(0.05)
        assert 'status="repriced"' not in await consumer.metrics()  # it is no status
        assert await consumer.end() == 0
    assert (replay.state, replay.applied) == ("applied", AFFECTED // 2)
    counted = await priced.database.fetch(
        "SELECT measure, key, sum(value)::int FROM analytics_minutes GROUP BY 1, 2 ORDER BY 1"
    )
    assert [tuple(row) for row in counted] == [
        ("price_adjusted", "USD", difference(AFFECTED // 2)),
        ("price_adjustments", "", AFFECTED // 2),
    ]
    assert await priced.database.fetch("SELECT FROM daily_summary") == []
    assert await priced.database.fetch("SELECT FROM dead_letters") == []
