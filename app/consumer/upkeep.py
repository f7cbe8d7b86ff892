"""Upkeep: what is measured, cut short and forgotten while events flow. Each round is small and bounded.

If the process dies here, the next round of any process does the same.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Final

from app.consumer.patience import Patience
from app.infra.postgres.dead_letters import DeadLetters
from app.infra.postgres.intake import Intake
from app.infra.redis.stream_upkeep import StreamUpkeep
from app.infra.redis.streams import ConsumerGroup
from app.observability import metrics

INTERVAL_S: Final = 10.0
WINDOW_S: Final = 60.0
"""How long the streams keep what everybody has acknowledged."""
RETIRE_S: Final = 600.0
"""How long nobody publishes to a stream of a shard that is no more until it is deleted."""
CONSUMER_IDLE_S: Final = 60.0
FORGET_INTERVAL_S: Final = 3600.0
FORGET_BATCH_MAX: Final = 1000
FORGET_PAUSE_S: Final = 0.1


async def keep_streams(
    streams: StreamUpkeep, groups: Mapping[str, ConsumerGroup], patience: Patience
) -> None:
    """Measure how far each group is behind, cut the streams short, forget consumers that are gone."""
    while True:
        for name, group in groups.items():
            lag = await streams.lag(name)
            metrics.STREAM_LAG.set(lag.unread, name)
            metrics.STREAM_OLDEST.set(lag.oldest_s, name)
            await streams.forget_consumers(group, name, idle_s=CONSUMER_IDLE_S)
        await streams.trim(keep_s=WINDOW_S)
        await streams.retire(idle_s=RETIRE_S)
        patience.well()
        await asyncio.sleep(INTERVAL_S)


async def count_dead_letters(letters: DeadLetters, groups: Iterable[str], patience: Patience) -> None:
    """Measure how many dead letters of each group wait for somebody; delete what was dealt with long ago."""
    names = tuple(groups)
    while True:
        for name, count in (await letters.counts(names)).items():
            metrics.DLQ_EVENTS.set(count, name)
        await letters.forget()
        patience.well()
        await asyncio.sleep(INTERVAL_S)


async def forget_answers(intake: Intake, patience: Patience) -> None:
    """Delete the answers of idempotency keys that have outlived their time, a few at a time."""
    while True:
        more = await intake.forget(FORGET_BATCH_MAX) == FORGET_BATCH_MAX
        patience.well()
        await asyncio.sleep(FORGET_PAUSE_S if more else FORGET_INTERVAL_S)
