"""The daily seal, made by the relay that leads.

If the process dies here, the day is sealed by whoever leads next. The hash of each seal is logged: logs that
are
kept apart from the database prove that neither events nor seals were made anew.
"""

import asyncio
from typing import Final

from app.consumer.patience import Patience
from app.infra.postgres.seals import PostgresSeals
from app.observability.logging import logger

INTERVAL_S: Final = 900.0
"""How often it is asked whether another day is over."""

log = logger("seals")


async def seal_days(seals: PostgresSeals, patience: Patience) -> None:
    """Seal every day that is over, the oldest first. Raises Unavailable; it goes on where it was."""
    while True:
        made = await seals.seal_next()
        patience.well()
        if made is None:
            await asyncio.sleep(INTERVAL_S)
        else:
            log.info("day_sealed", day=made.day.isoformat(), events=made.events, hash=made.hash.hex())
