"""MODE=consumer: relay, reader of the group `projections`, reconciler and upkeep, in one process.

Everything is built here, in one stack, and closed in reverse. Each part waits for PostgreSQL and Redis by
itself, at the start and later, as long as it takes; one that ends by itself ends the process. SIGTERM: finish
the batch, hand back the rest, and exit within SHUTDOWN_TIMEOUT_S whatever happens. Killed instead: others
claim what was held, and nothing has its effect twice.
"""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import uvloop

from app.config import Settings
from app.consumer import upkeep
from app.consumer.dispatch import projections
from app.consumer.effect import Delivery, Effect
from app.consumer.parts import EXIT_FAILED, Parts, exit_anyway
from app.consumer.patience import Patience, for_ever
from app.consumer.projections import write_documents
from app.consumer.reader import Reader
from app.consumer.reconcile import INBOX_MAX, Reconciler
from app.consumer.relay import Relay
from app.consumer.seals import seal_days
from app.contracts import streams
from app.infra.postgres.event_outbox import open_outbox
from app.infra.postgres.intake import Intake
from app.infra.postgres.pool import Database
from app.infra.postgres.projections import PostgresProjections
from app.infra.postgres.seals import PostgresSeals
from app.infra.redis.clients import open_redis
from app.infra.redis.documents import Documents
from app.infra.redis.hints import Hints
from app.infra.redis.metrics import watch_memory
from app.infra.redis.stream_upkeep import StreamUpkeep
from app.infra.redis.streams import ConsumerGroup, EventStreams
from app.observability import health, logging, metrics

SHUTDOWN_SHARE: Final = 0.8
"""How much of SHUTDOWN_TIMEOUT_S the batch under way may take; the rest is for closing."""
ENDING_SHARE: Final = 0.15
"""How much of it the other parts may take to end."""

log = logging.logger("consumer")


def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; 0 then, 1 when a part ended by itself or did not end."""
    logging.configure(
        level=settings.log_level, fmt=settings.log_format, mode="consumer", environment=settings.environment
    )
    metrics.serve_for("consumer")
    return uvloop.run(_run(settings))


async def _run(settings: Settings) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    parts = Parts()
    forcing = asyncio.create_task(exit_anyway(stop, settings.shutdown_timeout_s))
    source = streams.source(settings.environment)
    shards = settings.event_shards
    async with AsyncExitStack() as stack:
        database = Database(settings.database_url, size=settings.database_pool_size, name="consumer")
        stack.push_async_callback((await database.open()).close)
        checks: dict[str, health.Check] = {
            "postgres": database.is_well,
            "reader": partial(parts.runs, "reader"),
            "relay": partial(parts.runs, "relay"),
        }
        await stack.enter_async_context(health.serve(settings.listen_host, settings.health_port, checks))
        redis = await stack.enter_async_context(
            open_redis(settings.redis_url, settings.redis_db, settings.environment, "consumer")
        )
        checks["redis"] = redis.is_well
        redis.start(watch_memory(redis.hot))

        store = PostgresProjections(database, source)
        group = projections(write_documents(Documents(redis, settings.environment)))
        consumer = ConsumerGroup(redis, shards, group.name, _name())
        inbox: asyncio.Queue[Delivery] = asyncio.Queue(INBOX_MAX)
        reconciler = Reconciler(store, group.name, inbox)
        reader = Reader(consumer, Effect(group, store), inbox, on_loss=reconciler.start_over)
        relay = Relay(
            lambda: open_outbox(settings.database_url, source),
            EventStreams(redis, shards),
            Hints(redis).listen(streams.hint_event_outbox(settings.environment)),
            partial(upkeep.forget_answers, Intake(database)),
            partial(seal_days, PostgresSeals(database)),
        )
        keeper = StreamUpkeep(redis, shards, (group.name,))
        lasting: dict[str, Callable[[Patience], Awaitable[None]]] = {
            "relay": relay.run,
            "reconciler": reconciler.run,
            "streams": partial(upkeep.keep_streams, keeper, consumer, group.name),
            "open_orders": partial(upkeep.count_open_orders, store),
        }
        for part, work in lasting.items():
            parts.start(part, for_ever(part, work, stop))
        code = await _until_stopped(stop, reader, parts, settings.shutdown_timeout_s)
    forcing.cancel()
    return code


async def _until_stopped(stop: asyncio.Event, reader: Reader, parts: Parts, timeout_s: float) -> int:
    """Read until `stop` or until a part ends by itself, let the reader finish, then end all parts."""
    reading = parts.start("reader", reader.run())
    log.info("ready")
    well = await parts.until(stop)
    stop.set()
    reader.stop()
    await asyncio.wait({reading}, timeout=timeout_s * SHUTDOWN_SHARE)
    if not reading.done():
        log.warning("stopped_in_the_middle")  # others claim what is held
    elif well and reading.exception() is not None:
        log.error("part_ended", part="reader", exc_info=reading.exception())
        well = False
    ended = await parts.end(timeout_s * ENDING_SHARE)
    log.info("stopped", clean=well and ended)
    return 0 if well and ended else EXIT_FAILED


def _name() -> str:
    """A name that no other consumer has or had."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
