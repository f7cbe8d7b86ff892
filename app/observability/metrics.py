"""Metrics: the names that dashboards and alerts rely on, in one place (Prometheus)."""

from contextlib import suppress
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

from app.observability.request_metrics import RequestMetrics

REGISTRY: Final = CollectorRegistry()
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)

_FAST: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SLOW: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)

HTTP: Final = RequestMetrics()
"""Requests of the gateway."""

ORDERS: Final = Counter("holdfast_orders_total", "Orders that reached a status", ("status",), registry=None)
ORDER_CONFIRM: Final = Histogram(
    "holdfast_order_confirm_seconds", "From accepted to confirmed", buckets=_SLOW, registry=None
)
OPEN_ORDERS: Final = Gauge("holdfast_open_orders", "Orders that are not final", registry=None)
OUTBOX_AGE: Final = Gauge(
    "holdfast_outbox_age_seconds", "Age of the oldest event that is not published", registry=None
)
STREAM_LAG: Final = Gauge("holdfast_stream_lag", "Events a group has not read", ("group",), registry=None)
STREAM_OLDEST: Final = Gauge(
    "holdfast_stream_oldest_pending_seconds",
    "Age of the oldest event a group has not acknowledged",
    ("group",),
    registry=None,
)
DLQ_EVENTS: Final = Gauge(
    "holdfast_dlq_events", "Dead letters of a group that wait for somebody", ("group",), registry=None
)
REDIS_UP: Final = Gauge("holdfast_redis_up", "Whether Redis answered last", registry=None)
POOL_WAIT: Final = Histogram(
    "holdfast_pool_wait_seconds", "Wait for a database connection", buckets=_FAST, registry=None
)
HTTP_IN_FLIGHT: Final = Gauge(
    "holdfast_http_requests_in_flight", "Requests that are under way", registry=None
)
LIVE_LISTENERS: Final = Gauge(
    "holdfast_live_listeners", "Open streams of events, of one order or of all", ("of",), registry=None
)
LIVE_EVENTS: Final = Counter(
    "holdfast_live_events_total", "Events sent to whoever follows them live", registry=None
)
MAILS: Final = Counter(
    "holdfast_mails_total", "Mails to customers: sent, put off, failed for good", ("outcome",), registry=None
)
MAILS_OLDEST: Final = Gauge(
    "holdfast_mails_oldest_waiting_seconds", "Age of the oldest mail that waits", registry=None
)
WEBHOOK_ATTEMPTS: Final = Counter(
    "holdfast_webhook_attempts_total",
    "Webhooks sent: delivered, failed (to be tried again), given up",
    ("outcome",),
    registry=None,
)
WEBHOOK_LEFT_ALONE: Final = Gauge(
    "holdfast_webhook_endpoints_left_alone", "Endpoints that failed again and again", registry=None
)
OPERATOR_ALERTS: Final = Counter(
    "holdfast_operator_alerts_total", "Steps that failed for good", ("step",), registry=None
)

_SERVED: Final = {
    "gateway": (HTTP, HTTP_IN_FLIGHT, LIVE_LISTENERS, LIVE_EVENTS, REDIS_UP, POOL_WAIT),
    "worker": (OPERATOR_ALERTS, WEBHOOK_ATTEMPTS, REDIS_UP, POOL_WAIT),
    "consumer": (
        ORDERS,
        ORDER_CONFIRM,
        OPEN_ORDERS,
        OUTBOX_AGE,
        STREAM_LAG,
        STREAM_OLDEST,
        DLQ_EVENTS,
        MAILS,
        MAILS_OLDEST,
        WEBHOOK_LEFT_ALONE,
        REDIS_UP,
        POOL_WAIT,
    ),
}
"""Mode → the metrics it knows. Nobody serves a zero that only means "not my business"."""

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


def serve_for(mode: str) -> None:
    """Serve the metrics of one mode, beside the process's own. Twice is the same as once."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    for metric in _SERVED[mode]:
        with suppress(ValueError):  # it is registered already
            REGISTRY.register(metric)


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(REGISTRY)
