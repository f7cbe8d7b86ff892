"""The partitions of the coming months, made by the relay that leads.

If the process dies here, whoever leads next makes them; until then the net catches what has no month.
"""

import asyncio
from typing import Final

from app.consumer.patience import Patience
from app.infra.postgres.partitions import PostgresPartitions
from app.observability.logging import logger

INTERVAL_S: Final = 3600.0

log = logger("partitions")


async def make_partitions(partitions: PostgresPartitions, patience: Patience) -> None:
    """Make the partitions that are missing, again and again. Raises Unavailable; it asks again then."""
    while True:
        for name in await partitions.make():
            log.info("partition_made", name=name)
        patience.well()
        await asyncio.sleep(INTERVAL_S)
