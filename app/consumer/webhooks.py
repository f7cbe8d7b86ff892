"""The group `webhooks`: a delivery for every endpoint that wants an event, and the upkeep of deliveries.

The handler only writes deliveries, in the transaction of the group's marks; a worker begins them in their
turn. If the process dies here, nothing was written and the events come again.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Final

from app.consumer.patience import Patience
from app.consumer.projections import Applied
from app.contracts.streams import Envelope
from app.infra.postgres import webhook_deliveries
from app.infra.postgres.pool import Database
from app.infra.postgres.projections import Effects
from app.infra.postgres.webhook_deliveries import WebhookDeliveries
from app.infra.postgres.webhook_endpoints import WebhookEndpoints
from app.infra.postgres.webhook_waiting import WaitingDeliveries
from app.observability import metrics
from app.observability.logging import logger

UPKEEP_INTERVAL_S: Final = 15.0
FORGET_BATCH_MAX: Final = 1000

_has_deliveries: Final[ContextVar[bool]] = ContextVar("_has_deliveries", default=False)
"""Whether the batch that this task handles made any: what follows the commit runs in the same task."""

log = logger("webhooks")


async def write_deliveries(events: Sequence[Envelope], effects: Effects) -> None:
    """A delivery of each event to each endpoint that wants it. One statement where there is none."""
    if await webhook_deliveries.add(effects.connection, events):
        _has_deliveries.set(True)


def hint_deliveries(hint: Callable[[], None]) -> Callable[[Applied], Awaitable[None]]:
    """After the commit, have the worker look at once."""

    async def tell(_: Applied) -> None:
        if _has_deliveries.get():
            _has_deliveries.set(False)
            hint()

    return tell


async def keep_webhooks(database: Database, source: str, patience: Patience) -> None:
    """Count who is left alone and what waits, begin lost deliveries anew, forget what is old."""
    endpoints, waiting = WebhookEndpoints(database), WaitingDeliveries(database)
    deliveries = WebhookDeliveries(database, source)
    while True:
        metrics.WEBHOOK_LEFT_ALONE.set(await endpoints.left_alone(), good_for_s=3 * UPKEEP_INTERVAL_S)
        metrics.WEBHOOKS_WAITING.set(await waiting.count(), good_for_s=3 * UPKEEP_INTERVAL_S)
        metrics.WEBHOOKS_LATE.set(await waiting.late_s(), good_for_s=3 * UPKEEP_INTERVAL_S)
        revived = await deliveries.revive()
        if revived:
            log.warning("webhook_deliveries_begun_anew", deliveries=revived)
        await deliveries.forget(FORGET_BATCH_MAX)
        await endpoints.forget_secrets()
        patience.well()
        await asyncio.sleep(UPKEEP_INTERVAL_S)
