"""Rules, dashboards and runbooks ask for metrics and labels that exist, and for all that are promised."""

import re

from app.contracts import temporal
from app.domain.events import TYPES
from app.domain.order import Status
from app.gateway.routes import ROUTES
from app.gateway.shedding import PROBES
from app.infra.postgres.backlog import WAITING_ON
from app.workers.policies import STEPS
from tests.architecture.watched import (
    FROM_ELSEWHERE,
    TARGET_LABELS,
    documented,
    expressions,
    labels_of,
    metrics_of,
    rules,
    values_of,
)

VALUES: dict[str, set[str]] = {
    "route": {route.path for route in ROUTES} | PROBES,
    "type": set(TYPES.values()),
    "on": set(WAITING_ON),
    "outbox": {"events", "workflows", "jobs"},
    "mode": {"gateway", "worker", "consumer"},
    "place": {"near", "redis", "postgres"},
    "activity_type": {*STEPS, temporal.ALERT_OPERATOR, temporal.SEND_WEBHOOK},
    "step": set(STEPS),
    "method": {"GET", "POST"},
    "state": {"used", "idle"},
    "holdfast_orders_total status": set(Status),
    "holdfast_oldest_open_order_seconds status": set(Status),
}
"""Label, or metric and label, → the values that it has."""

PROMISED = (
    "holdfast_http_requests_total",
    "holdfast_http_request_duration_seconds_bucket",
    "holdfast_orders_total",
    "holdfast_order_confirm_seconds_bucket",
    "holdfast_stream_lag",
    "holdfast_stream_oldest_pending_seconds",
    "holdfast_outbox_age_seconds",
    "holdfast_dlq_events",
    "holdfast_redis_up",
    "holdfast_redis_memory_ratio",
    "holdfast_redis_command_seconds_bucket",
    "holdfast_pool_wait_seconds_bucket",
    "holdfast_open_orders",
)
"""What every release serves under these names."""


def test_every_metric_that_is_asked_for_is_served_by_somebody():
    """A metric that was renamed makes an alert silent for ever."""
    known = set(documented()) | set(FROM_ELSEWHERE) | {rule["record"] for rule in rules() if "record" in rule}
    unknown = {
        (expression.where, name)
        for expression in expressions()
        for name in metrics_of(expression.text) - known
    }
    assert unknown == set()


def test_series_are_selected_by_labels_that_they_have():
    """So does a label that was renamed."""
    unknown = {
        (expression.where, name, label)
        for expression in expressions()
        for name, labels in labels_of(expression.text)
        if name in documented()
        for label in labels - documented()[name] - TARGET_LABELS
    }
    assert unknown == set()


def test_series_are_selected_by_values_that_there_are():
    """And a route or a type of event that was written otherwise: nothing says so, no series is found."""
    unknown = set()
    for expression in expressions():
        for name, label, how, value in values_of(expression.text):
            known = VALUES.get(f"{name} {label}", VALUES.get(label))
            if known is None or name not in documented():
                continue
            wanted = [value] if "(" in value or how in {"=", "!="} else value.split("|")
            for one in wanted:
                pattern = one if "~" in how else re.escape(one)
                if not any(re.fullmatch(pattern, there) for there in known):
                    unknown.add((expression.where, name, label, one))
    assert unknown == set()


def test_every_metric_of_the_contract_is_looked_at():
    """What is promised to be measured is in an alert or on a dashboard."""
    looked_at = {name for expression in expressions() for name in metrics_of(expression.text)}
    assert set(PROMISED) - looked_at == set()


def test_the_names_in_an_expression_are_found():
    """Functions, labels, keywords and durations are no metrics; strings may hold anything."""
    text = (
        'sum by (namespace, le) (rate(a_bucket{x=~"b|c{d}h",y="1"}[5m] offset 1h)) / on (z) group_left (m) '
        "(namespace:e:ratio5m > 14.4 * 0.0005) and max_over_time(f[1d]) unless g"
    )
    assert metrics_of(text) == {"a_bucket", "namespace:e:ratio5m", "f", "g"}
    assert dict(labels_of('a{x=~"b{c}",y!="d=1"}')) == {"a": {"x", "y"}}
    assert list(values_of('a{x=~"b{c}"}')) == [("a", "x", "=~", "b{c}")]
