"""Upkeep: what is measured, cut short and forgotten while events flow. Each round is small and bounded.

If the process dies here, the next round of any process does the same.
"""

import asyncio
from typing import Final

from app.consumer.patience import Patience
from app.infra.postgres.intake import Intake
from app.infra.postgres.projections import PostgresProjections
from app.infra.redis.stream_upkeep import StreamUpkeep
from app.infra.redis.streams import ConsumerGroup
from app.observability import metrics

INTERVAL_S: Final = 10.0
WINDOW_S: Final = 60.0
"""How long the streams keep what everybody has acknowledged."""
CONSUMER_IDLE_S: Final = 60.0
FORGET_INTERVAL_S: Final = 3600.0
FORGET_BATCH_MAX: Final = 1000
FORGET_PAUSE_S: Final = 0.1


async def keep_streams(streams: StreamUpkeep, group: ConsumerGroup, name: str, patience: Patience) -> None:
    """Measure the lag of the group `name`, cut the streams short, forget consumers that are gone."""
    while True:
        metrics.STREAM_LAG.labels(name).set((await streams.lag(name)).unread)
        await streams.trim(keep_s=WINDOW_S)
        await streams.forget_consumers(group, name, idle_s=CONSUMER_IDLE_S)
        patience.well()
        await asyncio.sleep(INTERVAL_S)


async def count_open_orders(store: PostgresProjections, patience: Patience) -> None:
    """Measure how many orders are not final."""
    while True:
        metrics.OPEN_ORDERS.set(await store.open_orders())
        patience.well()
        await asyncio.sleep(INTERVAL_S)


async def forget_answers(intake: Intake, patience: Patience) -> None:
    """Delete the answers of idempotency keys that have outlived their time, a few at a time."""
    while True:
        more = await intake.forget(FORGET_BATCH_MAX) == FORGET_BATCH_MAX
        patience.well()
        await asyncio.sleep(FORGET_PAUSE_S if more else FORGET_INTERVAL_S)
