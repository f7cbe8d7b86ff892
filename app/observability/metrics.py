"""Metrics: the names that dashboards and alerts rely on (Prometheus); docs/METRICS.md says what they mean.

What the hot path and the pools count is named beside them (`infra/redis/metrics.py`,
`infra/postgres/metrics.py`). A scrape reads memory and asks nobody. Where a label's values are known, all of
them are served from the start: a counter that appears with its first count looks as if nothing had happened.
"""

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from app.domain import events
from app.domain.order import Status
from app.observability.measuring import Measured
from app.observability.request_metrics import RequestMetrics

REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SLOW: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)

BUILD: Final = Gauge("holdfast_build_info", "Which program this is", ("mode", "version"), registry=None)

HTTP: Final = RequestMetrics()
"""Requests of the gateway."""
HTTP_IN_FLIGHT: Final = Gauge(
    "holdfast_http_requests_in_flight", "Requests that are under way", registry=None
)
LIVE_LISTENERS: Final = Gauge(
    "holdfast_live_listeners", "Open streams of events, of one order or of all", ("of",), registry=None
)
LIVE_EVENTS: Final = Counter(
    "holdfast_live_events_total", "Events sent to whoever follows them live", registry=None
)

ORDERS: Final = Counter("holdfast_orders_total", "Orders that reached a status", ("status",), registry=None)
EVENTS: Final = Counter("holdfast_events_total", "Events that were applied", ("type",), registry=None)
ORDER_CONFIRM: Final = Histogram(
    "holdfast_order_confirm_seconds", "From accepted to confirmed", buckets=_SLOW, registry=None
)
OPEN_ORDERS: Final = Measured("holdfast_open_orders", "Orders that are not final")
ORDERS_WAITING: Final = Measured(
    "holdfast_orders_waiting", "Open orders that say what they wait for", ("on",)
)
OLDEST_OPEN: Final = Measured(
    "holdfast_oldest_open_order_seconds", "Age of the oldest order in a status that is not final", ("status",)
)
OUTBOX_AGE: Final = Measured("holdfast_outbox_age_seconds", "Age of the oldest row that waits", ("outbox",))
STREAM_LAG: Final = Measured("holdfast_stream_lag", "Events a group was not given", ("group",))
STREAM_OLDEST: Final = Measured(
    "holdfast_stream_oldest_pending_seconds",
    "Age of the oldest event a group has not acknowledged",
    ("group",),
)
DLQ_EVENTS: Final = Measured(
    "holdfast_dlq_events", "Dead letters of a group that wait for somebody", ("group",)
)
SHARDS: Final = Gauge("holdfast_shards", "Shards that events are spread over", registry=None)
SHARDS_HELD: Final = Gauge(
    "holdfast_shards_held", "Shards that this process holds the lease of", ("group",), registry=None
)
MAILS: Final = Counter(
    "holdfast_mails_total", "Mails to customers: sent, put off, failed for good", ("outcome",), registry=None
)
MAILS_OLDEST: Final = Measured("holdfast_mails_oldest_waiting_seconds", "Age of the oldest mail that waits")
WEBHOOK_ATTEMPTS: Final = Counter(
    "holdfast_webhook_attempts_total",
    "Webhooks sent: delivered, failed (to be tried again), given up",
    ("outcome",),
    registry=None,
)
WEBHOOK_LEFT_ALONE: Final = Measured(
    "holdfast_webhook_endpoints_left_alone", "Endpoints that failed again and again"
)
WEBHOOKS_WAITING: Final = Measured(
    "holdfast_webhook_deliveries_waiting", "Webhooks that wait in PostgreSQL for their turn"
)
WEBHOOKS_LATE: Final = Measured(
    "holdfast_webhook_oldest_due_seconds",
    "For how long the first webhook is due whose endpoint is not left alone",
)
OPERATOR_ALERTS: Final = Counter(
    "holdfast_operator_alerts_total", "Steps that failed for good", ("step",), registry=None
)

REDIS_UP: Final = Gauge("holdfast_redis_up", "Whether Redis answered last", registry=None)
POSTGRES_UP: Final = Gauge("holdfast_postgres_up", "Whether PostgreSQL answered last", registry=None)
TEMPORAL_UP: Final = Gauge("holdfast_temporal_up", "Whether Temporal answered last", registry=None)
TEMPORAL_METRICS_UP: Final = Gauge(
    "holdfast_temporal_metrics_up", "Whether the SDK's own metrics are below", registry=None
)
POOL_WAIT: Final = Histogram(
    "holdfast_pool_wait_seconds", "Wait for a database connection", buckets=_FAST, registry=None
)
POOL_TIMEOUTS: Final = Counter(
    "holdfast_pool_timeouts_total", "Waits that ended without a connection", registry=None
)

for _status in Status:
    ORDERS.labels(_status.value)
for _type in events.TYPES.values():
    EVENTS.labels(_type)
for _outcome in ("sent", "put_off", "failed"):
    MAILS.labels(_outcome)
for _outcome in ("delivered", "failed", "given_up"):
    WEBHOOK_ATTEMPTS.labels(_outcome)

_EVERYWHERE: Final = (BUILD, REDIS_UP, POSTGRES_UP, POOL_WAIT, POOL_TIMEOUTS)
_SERVED: Final = {
    "gateway": (*_EVERYWHERE, HTTP, HTTP_IN_FLIGHT, LIVE_LISTENERS, LIVE_EVENTS),
    "worker": (
        *_EVERYWHERE,
        OLDEST_OPEN,
        OPERATOR_ALERTS,
        OUTBOX_AGE,
        TEMPORAL_METRICS_UP,
        TEMPORAL_UP,
        WEBHOOK_ATTEMPTS,
    ),
    "consumer": (
        *_EVERYWHERE,
        DLQ_EVENTS,
        EVENTS,
        MAILS,
        MAILS_OLDEST,
        OLDEST_OPEN,
        OPEN_ORDERS,
        ORDERS,
        ORDERS_WAITING,
        ORDER_CONFIRM,
        OUTBOX_AGE,
        SHARDS,
        SHARDS_HELD,
        STREAM_LAG,
        STREAM_OLDEST,
        WEBHOOKS_LATE,
        WEBHOOKS_WAITING,
        WEBHOOK_LEFT_ALONE,
    ),
}
"""Mode → the metrics it knows. Nobody serves a zero that only means "not my business"."""

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


def serve_for(mode: str) -> None:
    """Serve the metrics of one mode, beside the process's own. Twice is the same as once."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    BUILD.labels(mode, _version()).set(1)
    for metric in _SERVED[mode]:
        with suppress(ValueError):  # it is registered already
            REGISTRY.register(metric)


def _version() -> str:
    try:
        return version("holdfast")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown"


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)


async def exposition_of_ours() -> bytes:
    """The same, for whoever waits for it: a mode may have to wait for more."""
    return exposition()
