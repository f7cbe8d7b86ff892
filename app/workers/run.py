"""MODE=worker: the order starter and the Temporal workers of the task queues in WORKER_QUEUES.

Everything is built here, in one stack, and closed in reverse. SIGTERM: stop taking work, finish the steps
under way, hand back the rest. Killed instead: every step is idempotent and is tried again elsewhere.
"""

import asyncio
import signal
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import Any, Final

import uvloop
from temporalio.client import Client, Interceptor
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import (
    PollerBehaviorSimpleMaximum,
    UnsandboxedWorkflowRunner,
    Worker,
    WorkerDeploymentConfig,
)

from app.config import Settings
from app.contracts import streams
from app.contracts import temporal as t
from app.garbage import settle
from app.infra.carriers.http import HttpCarrier
from app.infra.markers import Markers
from app.infra.payments.stripe import StripePayments
from app.infra.postgres import marker
from app.infra.postgres.backlog import watch_ages, watch_postgres
from app.infra.postgres.orders import PostgresOrders
from app.infra.postgres.pool import Database
from app.infra.postgres.room import refuse_small_server
from app.infra.postgres.webhook_deliveries import WebhookDeliveries
from app.infra.postgres.webhook_waiting import WaitingDeliveries
from app.infra.postgres.workflow_jobs import WorkflowJobs
from app.infra.postgres.workflow_outbox import WorkflowOutbox
from app.infra.redis.clients import open_redis
from app.infra.redis.documents import Documents
from app.infra.redis.hints import Hints
from app.infra.redis.metrics import watch_memory
from app.infra.tasks import end, running
from app.infra.temporal import marker as namespace_marker
from app.infra.temporal.client import connect, is_well
from app.infra.temporal.sdk_metrics import SdkMetrics
from app.infra.webhooks.sender import HttpSender
from app.observability import health, logging, metrics, tracing
from app.observability.measuring import keep_up
from app.replay.engine import Engine
from app.replay.registry import handlers
from app.workers.activities.inventory import InventoryActivities
from app.workers.activities.notifications import NotificationActivities
from app.workers.activities.orders import OrderActivities
from app.workers.activities.payments import PaymentActivities
from app.workers.activities.replay import ReplayActivities
from app.workers.activities.shipping import ShippingActivities
from app.workers.activities.webhooks import WebhookActivities
from app.workers.heartbeats import Heartbeats
from app.workers.outcomes import Outcomes
from app.workers.patience import patiently
from app.workers.starter import Starter
from app.workers.teller import Teller
from app.workers.webhook_starter import WebhookStarter
from app.workers.workflows.order import OrderWorkflow
from app.workers.workflows.replay import ReplayWorkflow
from app.workers.workflows.webhook import WebhookDeliveryWorkflow

WORKFLOWS_CACHED_MAX: Final = 2000
WORKFLOWS: Final[Mapping[str, Sequence[type]]] = {
    t.QUEUE_ORDERS: [OrderWorkflow, ReplayWorkflow],
    t.QUEUE_NOTIFICATIONS: [WebhookDeliveryWorkflow],
}
"""Queue → the workflows that are served there."""
ACTIVITIES_MAX: Final = 100
NOTIFICATIONS_MAX: Final = 250
"""Webhooks wait for strangers, of whom many may be slow; first attempts within the task of their workflow."""
POLLERS: Final = 4
END_S: Final = 3.0
"""How long whatever starts workflows may take to end."""

log = logging.logger("worker")


def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; 0 then, 1 when a worker stopped by itself."""
    logging.configure(
        level=settings.log_level, fmt=settings.log_format, mode="worker", environment=settings.environment
    )
    metrics.serve_for("worker")
    with tracing.started(tracing.target_of(settings, "worker")):
        return uvloop.run(_run(settings))


async def _run(settings: Settings) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        markers = Markers(settings.environment, stop)
        database = Database(
            settings.database_url,
            size=settings.database_pool_size,
            name="worker",
            examine=marker.examiner(markers),
        )
        stack.push_async_callback((await database.open()).close)
        await refuse_small_server(database, settings.database_pool_size, settings.database_connections_max)
        markers.refuse()
        clients: dict[str, Client] = {}
        checks: dict[str, health.Check] = {
            "postgres": database.is_well,
            "temporal": lambda: _is_connected(clients),
        }
        exposition = SdkMetrics().exposition
        await stack.enter_async_context(
            health.serve(settings.listen_host, settings.health_port, checks, exposition=exposition)
        )
        redis = await stack.enter_async_context(
            open_redis(settings.redis_url, settings.redis_db, settings.environment, "worker", markers)
        )
        await redis.settled()
        markers.refuse()
        watching = (watch_postgres(database), watch_ages(database), watch_memory(redis.hot))
        temporal_up = keep_up(metrics.TEMPORAL_UP, checks["temporal"])
        await stack.enter_async_context(running(*watching, temporal_up))
        hints = Hints(redis)
        await patiently(database.is_well, stop)  # its marker decides all others
        client = await patiently(partial(_connect, settings, markers), stop, away="temporal_is_away")
        markers.refuse()
        if client is None:
            return 0
        clients["temporal"] = client
        events_hint = streams.hint_event_outbox(settings.environment)
        orders = PostgresOrders(database, announce=lambda: hints.publish(events_hint))
        payments = StripePayments(settings.stripe_api_key, api_base=settings.stripe_api_base)
        stack.push_async_callback(payments.aclose)
        carrier = HttpCarrier(settings.carrier_url)
        stack.push_async_callback(carrier.aclose)
        sender = HttpSender(private_allowed=settings.environment == "dev")
        stack.callback(sender.close)
        turn = hints.listen(streams.hint_webhooks(settings.environment))
        sent = WebhookDeliveries(database, streams.source(settings.environment), others_wait=turn.wake)
        webhooks = WebhookActivities(sent, sender)
        replays = ReplayActivities(Engine(database, handlers(Documents(redis, settings.environment))))
        steps = _activities(orders, payments, carrier, webhooks, replays)
        workers = _workers(settings, client, orders, steps)
        # Where there are versions, Temporal says which one begins a workflow: else one that is on its way out
        # would go on taking to itself what it starts, and never be without orders.
        is_eager = _version(settings) is None
        starting: list[asyncio.Task[Any]] = [asyncio.create_task(namespace_marker.keep(client, markers))]
        if t.QUEUE_ORDERS in settings.worker_queues:
            channel = streams.hint_workflow_outbox(settings.environment)
            starter = Starter(WorkflowOutbox(database), client, hints.listen(channel), is_eager=is_eager)
            teller = Teller(WorkflowJobs(database, t.JOBS), client, hints.listen(channel), is_eager=is_eager)
            tasks = (starter.run(), starter.look_after(), teller.run())
            starting += [asyncio.create_task(task) for task in tasks]
        if t.QUEUE_NOTIFICATIONS in settings.worker_queues:
            sending = WebhookStarter(WaitingDeliveries(database), client, turn, is_eager=is_eager)
            starting += [asyncio.create_task(task) for task in (sending.run(), sending.give_up())]
        return markers.exit_code(await _until_stopped(stop, workers, starting))


async def _is_connected(clients: dict[str, Client]) -> bool:
    return "temporal" in clients and await is_well(clients["temporal"])


async def _connect(settings: Settings, markers: Markers) -> Client:
    """A client of our namespace. Raises RuntimeError, RPCError and AnotherEnvironmentError."""
    client = await connect(
        settings.temporal_address,
        settings.temporal_namespace,
        tls_cert=settings.temporal_tls_cert,
        tls_key=settings.temporal_tls_key,
        api_key=settings.temporal_api_key,
        interceptors=_traced(),
    )
    await namespace_marker.examine(client, markers)
    return client


def _traced() -> Sequence[Interceptor]:
    """What sends an order's trace with its workflow; nothing where nobody wants traces."""
    traces = tracing.active()
    if traces is None:
        return ()
    from app.workers.traces import Headers  # noqa: PLC0415 - not even imported where nobody wants it

    return (Headers(traces),)


def _activities(
    orders: PostgresOrders,
    payments: StripePayments,
    carrier: HttpCarrier,
    webhooks: WebhookActivities,
    replays: ReplayActivities,
) -> dict[str, list[Any]]:
    """Queue → the activities that are served there."""
    inventory = InventoryActivities(orders)
    paying = PaymentActivities(orders, payments)
    shipping = ShippingActivities(orders, carrier)
    own = OrderActivities(orders)
    return {
        t.QUEUE_ORDERS: [own.cancel_order, own.close_order, own.set_waiting, replays.carry_replay],
        t.QUEUE_INVENTORY: [inventory.reserve_stock, inventory.release_stock],
        t.QUEUE_PAYMENTS: [paying.authorize_payment, paying.capture_payment, paying.void_payment],
        t.QUEUE_SHIPPING: [
            shipping.book_shipments,
            shipping.release_shipments,
            shipping.track_shipments,
            shipping.cancel_shipments,
        ],
        t.QUEUE_NOTIFICATIONS: [NotificationActivities().alert_operator, webhooks.send_webhook],
    }


def _workers(
    settings: Settings, client: Client, orders: PostgresOrders, activities: dict[str, list[Any]]
) -> list[Worker]:
    # The suite runs every workflow in the sandbox and keeps clocks and dice out of the modules by reading
    # them; here the sandbox would only cost a third of the workflow's time.
    runner = UnsandboxedWorkflowRunner()
    grace = timedelta(seconds=settings.shutdown_timeout_s * 0.8)
    return [
        Worker(
            client,
            task_queue=queue,
            workflows=WORKFLOWS.get(queue, ()),
            activities=activities[queue],
            workflow_runner=runner,
            interceptors=[Heartbeats(), Outcomes(orders)],
            max_cached_workflows=WORKFLOWS_CACHED_MAX,
            max_concurrent_activities=_at_once_max(queue),
            max_concurrent_local_activities=_at_once_max(queue),
            max_concurrent_workflow_tasks=_at_once_max(queue),
            workflow_task_poller_behavior=PollerBehaviorSimpleMaximum(POLLERS),
            activity_task_poller_behavior=PollerBehaviorSimpleMaximum(POLLERS),
            graceful_shutdown_timeout=grace,
            deployment_config=_version(settings),
        )
        for queue in settings.worker_queues
    ]


def _at_once_max(queue: str) -> int:
    return NOTIFICATIONS_MAX if queue == t.QUEUE_NOTIFICATIONS else ACTIVITIES_MAX


def _version(settings: Settings) -> WorkerDeploymentConfig | None:
    """The version that this process is, if it was given one. A workflow stays with the one that began it."""
    name, build = settings.temporal_deployment_name, settings.temporal_worker_build_id
    if not name or not build:
        return None
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(name, build),
        use_worker_versioning=True,
        default_versioning_behavior=VersioningBehavior.PINNED,
    )


async def _until_stopped(
    stop: asyncio.Event, workers: list[Worker], starting: list[asyncio.Task[Any]]
) -> int:
    """Run everything until `stop`; 1 when something stopped by itself: a supervisor starts us again."""
    settle()
    running = [asyncio.create_task(worker.run()) for worker in workers]
    stopping = asyncio.create_task(stop.wait())
    log.info("ready", queues=[worker.task_queue for worker in workers])
    await asyncio.wait([stopping, *running, *starting], return_when=asyncio.FIRST_COMPLETED)
    well = stop.is_set()
    await end(starting, within_s=END_S)
    await asyncio.gather(*(worker.shutdown() for worker in workers), return_exceptions=True)
    outcomes = await asyncio.gather(*running, return_exceptions=True)
    stopping.cancel()
    for error in outcomes:
        if isinstance(error, Exception):
            log.error("worker_stopped", error=repr(error))
            well = False
    log.info("stopped", clean=well)
    return 0 if well else 1
