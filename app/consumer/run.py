"""MODE=consumer: relay, leases, upkeep, and for each group a reader, a gap job and its dead letters.

Everything is built here, in one stack, and closed in reverse. Each part waits for PostgreSQL and Redis by
itself, at the start and later, as long as it takes; one that ends by itself ends the process. SIGTERM: finish
the batch, hand back the rest, and exit within SHUTDOWN_TIMEOUT_S whatever happens. Killed instead: others
take its shards over within two seconds, and nothing has its effect twice.
"""

import asyncio
import os
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Final, TypeAlias

import uvloop

from app.config import Settings
from app.connections import OUTSIDE_POOL
from app.consumer import upkeep
from app.consumer.dispatch import Group, groups
from app.consumer.group_parts import GroupParts
from app.consumer.leases import Leases
from app.consumer.mail_sender import mail_sender
from app.consumer.partitions import make_partitions
from app.consumer.parts import EXIT_FAILED, Parts, exit_anyway
from app.consumer.patience import Patience, for_ever
from app.consumer.projections import write_documents
from app.consumer.reader import Reader
from app.consumer.relay import Relay, lease_group
from app.consumer.seals import seal_days
from app.consumer.webhooks import hint_deliveries, keep_webhooks
from app.contracts import streams
from app.domain.errors import Unavailable
from app.garbage import settle
from app.infra.markers import Markers
from app.infra.postgres import marker
from app.infra.postgres.backlog import watch_ages, watch_open_orders, watch_postgres
from app.infra.postgres.dead_letters import DeadLetters
from app.infra.postgres.event_outbox import open_outbox
from app.infra.postgres.intake import Intake
from app.infra.postgres.leases import ShardLeases
from app.infra.postgres.mails import PostgresMails
from app.infra.postgres.partitions import PostgresPartitions
from app.infra.postgres.pool import Database, Examine
from app.infra.postgres.projections import PostgresProjections
from app.infra.postgres.room import refuse_small_server
from app.infra.postgres.seals import PostgresSeals
from app.infra.redis.clients import RedisClients, open_redis
from app.infra.redis.documents import Documents
from app.infra.redis.hints import Hints
from app.infra.redis.metrics import watch_memory
from app.infra.redis.stream_upkeep import StreamUpkeep
from app.infra.redis.streams import EventStreams
from app.infra.tasks import running
from app.observability import health, logging, metrics, tracing

SHUTDOWN_SHARE: Final = 0.8
"""How much of SHUTDOWN_TIMEOUT_S the batch under way may take; the rest is for closing."""
ENDING_SHARE: Final = 0.15
"""How much of it the other parts may take to end."""

HAND_BACK_S: Final = 1.0

Chore: TypeAlias = Callable[[Patience], Awaitable[None]]
"""Work that goes on as long as the process; it says when all is well."""

log = logging.logger("consumer")


def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; 0 then, 1 when a part ended by itself or did not end."""
    logging.configure(
        level=settings.log_level, fmt=settings.log_format, mode="consumer", environment=settings.environment
    )
    metrics.serve_for("consumer")
    with tracing.started(tracing.target_of(settings, "consumer")):
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
        markers = Markers(settings.environment, stop)
        pool = partial(_pool, stack, settings.database_url, marker.examiner(markers))
        database = await pool("consumer", settings.database_pool_size)
        own = settings.database_pool_size + OUTSIDE_POOL["consumer"]
        await refuse_small_server(database, own, settings.database_connections_max)
        markers.refuse()
        checks: dict[str, health.Check] = {
            "postgres": database.is_well,
            "relay": partial(parts.runs, "relay"),
        }
        await stack.enter_async_context(
            health.serve(settings.listen_host, settings.health_port, checks, ("redis",))
        )
        redis = await _redis(stack, settings, markers)
        checks["redis"] = redis.is_well
        watching = (watch_postgres(database), watch_ages(database), watch_memory(redis.hot))
        await stack.enter_async_context(running(*watching))

        store, letters = PostgresProjections(database, source), DeadLetters(database)
        sender = mail_sender(PostgresMails(database), settings.smtp_url, settings.mail_from)
        documents = write_documents(Documents(redis, settings.environment))
        hints = Hints(redis)
        turn = partial(hints.publish, streams.hint_webhooks(settings.environment))
        known = _traced(groups(documents, sender.wake if sender else None, hint_deliveries(turn)))
        names = [group.name for group in known]
        beating = await pool("consumer-leases", 1)  # waits behind nothing
        leased = [*names, lease_group(shards)]
        leases = Leases(ShardLeases(beating, _name(), leased, shards), leased, shards)
        leases.serve_metrics()
        reading = [GroupParts(g, leases.holdings[g.name], store, letters, redis, shards) for g in known]
        checks["reader"] = partial(_all_run, parts, [f"reader:{name}" for name in names])
        relay = Relay(
            partial(open_outbox, settings.database_url, source, marker.examiner(markers)),
            EventStreams(redis, shards),
            hints.listen(streams.hint_event_outbox(settings.environment)),
            leases.holdings[lease_group(shards)],
            *_chores(database),
        )
        keeper = StreamUpkeep(redis, shards, tuple(names))
        lasting: dict[str, Chore] = {
            "leases": leases.run,
            "relay": relay.run,
            "streams": partial(upkeep.keep_streams, keeper, {part.name: part.streams for part in reading}),
            "letters": partial(upkeep.count_dead_letters, letters, names),
            "webhooks": partial(keep_webhooks, database, source),
        }
        for group in (*reading, sender):
            lasting |= group.lasting if group else {}
        if stop.is_set():  # parts that began now would end by themselves
            return markers.exit_code(0)
        for part, work in lasting.items():
            parts.start(part, for_ever(part, work, stop))
        readers = {f"reader:{group.name}": group.reader for group in reading}
        code = await _until_stopped(stop, readers, parts, settings.shutdown_timeout_s)
        await _hand_back(leases)
    forcing.cancel()
    return markers.exit_code(code)


async def _pool(stack: AsyncExitStack, dsn: str, examine: Examine, name: str, size: int) -> Database:
    """A pool whose connections are all asked whose database it is; `stack` closes it."""
    database = Database(dsn, size=size, name=name, examine=examine)
    stack.push_async_callback((await database.open()).close)
    return database


async def _redis(stack: AsyncExitStack, settings: Settings, markers: Markers) -> RedisClients:
    """Our Redis, which may be away. Raises ElsewhereError where it is another environment's."""
    redis = await stack.enter_async_context(
        open_redis(settings.redis_url, settings.redis_db, settings.environment, "consumer", markers)
    )
    await redis.settled()
    markers.refuse()
    return redis


def _chores(database: Database) -> tuple[Chore, ...]:
    """What is done by whoever relays, because one process is enough for it."""
    return (
        partial(upkeep.forget_answers, Intake(database)),
        partial(seal_days, PostgresSeals(database)),
        partial(make_partitions, PostgresPartitions(database)),
        lambda _: watch_open_orders(database),
    )


def _traced(known: tuple[Group, ...]) -> tuple[Group, ...]:
    """The same groups, which tell of what they do where anybody wants traces."""
    traces = tracing.active()
    if traces is None:
        return known
    from app.consumer.traces import traced  # noqa: PLC0415 - not even imported where nobody wants it

    return traced(known, traces)


async def _until_stopped(
    stop: asyncio.Event, readers: Mapping[str, Reader], parts: Parts, timeout_s: float
) -> int:
    """Read until `stop` or until a part ends by itself, let the readers finish, then end all parts."""
    settle()
    reading = {name: parts.start(name, reader.run()) for name, reader in readers.items()}
    log.info("ready")
    well = await parts.until(stop)
    stop.set()
    for reader in readers.values():
        reader.stop()
    await asyncio.wait(reading.values(), timeout=timeout_s * SHUTDOWN_SHARE)
    for name, task in reading.items():
        if not task.done():
            log.warning(
                "stopped_in_the_middle", part=name
            )  # whoever owns its shards next claims what is held
        elif well and task.exception() is not None:
            log.error("part_ended", part=name, exc_info=task.exception())
            well = False
    ended = await parts.end(timeout_s * ENDING_SHARE)
    log.info("stopped", clean=well and ended)
    return 0 if well and ended else EXIT_FAILED


async def _hand_back(leases: Leases) -> None:
    """Let others have the shards at once; where PostgreSQL does not answer, they find out by themselves."""
    try:
        async with asyncio.timeout(HAND_BACK_S):
            await leases.leave()
    except (Unavailable, TimeoutError) as error:
        log.debug("not_handed_back", error=str(error))


async def _all_run(parts: Parts, names: Sequence[str]) -> bool:
    return all([await parts.runs(name) for name in names])


def _name() -> str:
    """A name that no other consumer has or had."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
