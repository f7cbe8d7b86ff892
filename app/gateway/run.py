"""The gateway as a process: builds everything, serves until SIGTERM, closes everything in reverse.

It starts, and answers, whatever is dead around it: readiness and the log say what it misses. Where a server
is another environment's it does not start, or stops, with exit code 78. If the process dies, what it had
answered is in PostgreSQL, and what it had not is asked again by its callers, with their keys.
"""

import asyncio
import signal
from contextlib import AsyncExitStack
from functools import partial
from typing import Final

import uvloop

from app.config import Settings
from app.contracts.streams import source
from app.garbage import settle
from app.gateway.admission import Admissions
from app.gateway.application import application
from app.gateway.auth import Keyring
from app.gateway.cached_orders import CachedOrders
from app.gateway.edge import Edge
from app.gateway.live import Live
from app.gateway.openapi import open_api
from app.gateway.pages import docs_page
from app.gateway.routes import ROUTES
from app.gateway.server import LINGER_S, check_port, serve
from app.gateway.services import Services
from app.gateway.waiting import Watch
from app.infra.markers import Markers
from app.infra.postgres import marker
from app.infra.postgres.analytics import PostgresAnalytics
from app.infra.postgres.api_keys import ApiKeys
from app.infra.postgres.backlog import watch_postgres
from app.infra.postgres.catalogue import PostgresCatalogue
from app.infra.postgres.customers import PostgresCustomers
from app.infra.postgres.dead_letters import DeadLetters
from app.infra.postgres.intake import Intake
from app.infra.postgres.live_events import LiveEvents
from app.infra.postgres.order_lists import PostgresOrderLists
from app.infra.postgres.orders import PostgresOrders
from app.infra.postgres.pool import Database
from app.infra.postgres.room import refuse_small_server
from app.infra.postgres.shelves import PostgresShelves
from app.infra.postgres.webhook_deliveries import WebhookDeliveries
from app.infra.postgres.webhook_endpoints import WebhookEndpoints
from app.infra.redis.clients import open_redis
from app.infra.redis.documents import Documents
from app.infra.redis.gate import Gate
from app.infra.redis.hints import Hints
from app.infra.redis.live import LiveChannel
from app.infra.redis.metrics import watch_memory
from app.infra.tasks import running
from app.observability import logging, metrics, tracing
from app.observability.health import CannotListenError
from app.replay.desk import Desk

EXIT_FAILED: Final = 1

log = logging.logger("gateway")


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    logging.configure(
        level=settings.log_level, fmt=settings.log_format, mode="gateway", environment=settings.environment
    )
    metrics.serve_for("gateway")
    try:
        check_port(settings.listen_host, settings.port)
    except OSError as error:
        raise CannotListenError("PORT", settings.listen_host, settings.port, error) from None
    with tracing.started(tracing.target_of(settings, "gateway")):
        return uvloop.run(_run(settings))


async def _run(settings: Settings) -> int:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        markers = Markers(settings.environment, stopping)
        services = await build(settings, stack, stopping, markers)
        log.info("started", port=settings.port)
        edge = application(services, requests_max=settings.requests_max)
        stack.callback(edge.flush)
        settle()
        well = await serve(
            edge,
            settings.listen_host,
            settings.port,
            stopping,
            drain=partial(_leave, edge, services),
            shutdown_timeout_s=settings.shutdown_timeout_s,
            linger_s=LINGER_S,
            asked_late=lambda: edge.asked_late,
        )
        log.info("stopped", clean=well)
    return markers.exit_code(0 if well else EXIT_FAILED)


def _leave(edge: Edge, services: Services) -> None:
    """Let go whom we hold for long, and let every connection end with its next answer."""
    edge.leave()
    services.let_go()


async def build(
    settings: Settings, stack: AsyncExitStack, stopping: asyncio.Event, markers: Markers | None
) -> Services:
    """Everything the routes work with; `stack` closes it, `stopping` ends readiness.

    Raises ElsewhereError where a server that answers is another environment's. Without `markers`, nobody asks
    whose the servers are: for tests, whose gateways share some.
    """
    database = Database(
        settings.database_url,
        size=settings.database_pool_size,
        name="gateway",
        examine=marker.examiner(markers) if markers else None,
    )
    stack.push_async_callback((await database.open()).close)
    await refuse_small_server(database, settings.database_pool_size, settings.database_connections_max)
    if markers:
        markers.refuse()
    redis = await stack.enter_async_context(
        open_redis(settings.redis_url, settings.redis_db, settings.environment, "gateway", markers)
    )
    await redis.settled()
    if markers:
        markers.refuse()
    await stack.enter_async_context(running(watch_postgres(database), watch_memory(redis.hot)))
    lists, orders = PostgresOrderLists(database), PostgresOrders(database)
    cached = CachedOrders(orders, Documents(redis, settings.environment))
    stack.push_async_callback(cached.close)
    watch = Watch(lists)
    stack.push_async_callback(watch.close)
    live = Live(LiveEvents(database, source(settings.environment)), LiveChannel(redis))
    stack.push_async_callback(live.close)

    gate = await stack.enter_async_context(Gate(redis.hot, PostgresShelves(database), settings.environment))
    admissions = Admissions(redis.hot, gate, settings.environment, settings.rate_limit_per_s)
    stack.push_async_callback(admissions.close)

    async def is_running() -> bool:
        return not stopping.is_set()

    specification = open_api(ROUTES)
    return Services(
        environment=settings.environment,
        intake=Intake(database),
        orders=orders,
        lists=lists,
        catalogue=PostgresCatalogue(database),
        analytics=PostgresAnalytics(database),
        customers=PostgresCustomers(database),
        dead_letters=DeadLetters(database),
        replays=Desk(database),
        webhook_endpoints=WebhookEndpoints(database),
        webhook_deliveries=WebhookDeliveries(database, source(settings.environment)),
        cached=cached,
        keyring=Keyring(ApiKeys(database)),
        admissions=admissions,
        gate=gate,
        watch=watch,
        live=live,
        hints=Hints(redis),
        webhook_secret=settings.carrier_webhook_secret.encode(),
        checks={"postgres": database.is_well, "running": is_running},
        open_api=specification,
        docs_page=docs_page(specification),
    )
