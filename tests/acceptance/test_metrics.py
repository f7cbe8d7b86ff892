"""Every metric that is documented is there, with true values, after an order went through: a real scrape."""

import asyncio
import math
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple

import pytest
from prometheus_client import Metric

from tests.acceptance.shop import SETTLE_TIMEOUT_S, Shop
from tests.acceptance.stack import Stack
from tests.metrics_table import MODES, ours, parsed, temporals, value

GROUPS = ("projections", "notifications", "webhooks", "analytics")
IDS = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}|[0-9a-f]{16,}|\d{6,}|[^\s\"]+@[^\s\"]+", re.IGNORECASE)
"""ULIDs, hashes and trace ids, long numbers, addresses of mail."""
SAMPLES_MAX = 3000
MEASURED_TIMEOUT_S = 60
NEVER_YET = {
    "temporal_workflow_task_execution_failed",
    "temporal_activity_execution_failed",
}
"""What is served only when it happened; nothing fails here."""

Families = dict[str, Metric]


class Scraped(NamedTuple):
    """What each mode serves when an order has gone through, and what nobody may find in it."""

    text: dict[str, str]
    families: dict[str, Families]
    personal: tuple[str, ...]


@pytest.fixture(scope="module")
async def scraped(stack: Stack) -> AsyncIterator[Scraped]:
    """Place an order, wait until it is completed and everybody has seen and measured that."""
    status = await stack.until_ready()
    shop = Shop(status)
    urls = {"gateway": shop.url, "worker": status["worker"]["health_url"]}
    urls["consumer"] = status["consumer"]["health_url"]
    try:
        await shop.stock("measured-sku", 10)
        order = (await shop.place(f"{shop.customer}-measured", "measured-sku")).json()
        await shop.settled()
        await shop.order(order["id"])
        text: dict[str, str] = {}
        until = time.monotonic() + MEASURED_TIMEOUT_S
        while missing := _missing(text) or _away(text):
            assert time.monotonic() < until, missing
            await asyncio.sleep(0.2)
            text = {mode: (await shop.http.get(f"{urls[mode]}/metrics")).text for mode in MODES}
        personal = (shop.customer, order["id"], order["correlation_id"], status["api_key"], "measured-sku")
        yield Scraped(text, {mode: parsed(text[mode]) for mode in MODES}, personal)
    finally:
        await shop.close()


def _missing(text: dict[str, str]) -> set[str]:
    """What was not measured yet, or has not heard of the order."""
    if not text:
        return set(MODES)
    families = {mode: parsed(text[mode]) for mode in MODES}
    missing = {name for mode in MODES for name in _documented(mode) - families[mode].keys()}
    missing |= temporals().keys() - NEVER_YET - families["worker"].keys()
    if not value(families["consumer"], "holdfast_orders_total", status="completed"):
        missing.add("a completed order")
    return missing


def _documented(mode: str) -> set[str]:
    return {row.name for row in ours().values() if mode in row.modes}


def _served(scraped: Scraped, mode: str) -> Families:
    return {name: one for name, one in scraped.families[mode].items() if name.startswith("holdfast_")}


@pytest.mark.parametrize("mode", MODES)
async def test_each_mode_serves_its_rows_of_the_table_and_no_others(scraped: Scraped, mode: str) -> None:
    """Dashboards and alerts rely on docs/METRICS.md."""
    assert _served(scraped, mode).keys() == _documented(mode)


@pytest.mark.parametrize("mode", MODES)
async def test_types_and_labels_are_those_of_the_table(scraped: Scraped, mode: str) -> None:
    """A label more splits what a rule adds up; a label less makes it find nothing."""
    rows = ours()
    for name, family in _served(scraped, mode).items():
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        assert (name, family.type, labels) == (name, rows[name].type, rows[name].labels)


@pytest.mark.parametrize("name", sorted(temporals().keys() - NEVER_YET))
async def test_the_worker_serves_what_temporal_counts(scraped: Scraped, name: str) -> None:
    """Under the names, with the labels and types that are documented."""
    family = scraped.families["worker"][name]
    labels = {label for sample in family.samples for label in sample.labels} - {"le", "eager"}
    assert (family.type, labels) == (temporals()[name].type, temporals()[name].labels)


async def test_temporals_durations_are_seconds(scraped: Scraped) -> None:
    """An order takes tenths of a second at least: milliseconds would be hundreds."""
    worker = scraped.families["worker"]
    took = value(worker, "temporal_workflow_endtoend_latency_sum", workflow_type="OrderWorkflow")
    count = value(worker, "temporal_workflow_endtoend_latency_count", workflow_type="OrderWorkflow")
    assert 0.01 < took / count < SETTLE_TIMEOUT_S


class Fact(NamedTuple):
    """A metric of a mode, some of its labels, and what holds for its value."""

    mode: str
    name: str
    labels: dict[str, str]
    holds: Callable[[float], bool]


def _some(number: float) -> bool:
    return number >= 1


def _is_one(number: float) -> bool:
    return number == 1


def _none(number: float) -> bool:
    return number == 0


def _is_age(number: float) -> bool:
    return 0 <= number < 24 * 3600


def _number(number: float) -> bool:
    return number >= 0 and math.isfinite(number)


FACTS = [
    Fact("gateway", "holdfast_http_requests_total", {"route": "/v1/orders", "status": "202"}, _some),
    Fact("gateway", "holdfast_http_request_duration_seconds_count", {"route": "/v1/orders"}, _some),
    Fact("consumer", "holdfast_orders_total", {"status": "accepted"}, _some),
    Fact("consumer", "holdfast_orders_total", {"status": "completed"}, _some),
    Fact("consumer", "holdfast_events_total", {"type": "payment.captured.v1"}, _some),
    Fact("consumer", "holdfast_order_confirm_seconds_count", {}, _some),
    Fact("consumer", "holdfast_open_orders", {}, _number),
    Fact("consumer", "holdfast_orders_waiting", {"on": "operator"}, _none),
    Fact("worker", "holdfast_temporal_up", {}, _is_one),
    Fact("worker", "holdfast_temporal_metrics_up", {}, _is_one),
    Fact("worker", "temporal_workflow_completed", {"workflow_type": "OrderWorkflow"}, _some),
    Fact("worker", "holdfast_operator_alerts_total", {"step": "capture_payment"}, _none),
    *(Fact("consumer", "holdfast_stream_lag", {"group": group}, _number) for group in GROUPS),
    *(
        Fact("consumer", "holdfast_stream_oldest_pending_seconds", {"group": group}, _is_age)
        for group in GROUPS
    ),
    *(Fact("consumer", "holdfast_dlq_events", {"group": group}, _none) for group in GROUPS),
    *(
        Fact("consumer", "holdfast_shards_held", {"group": group}, lambda held: held == 4)
        for group in (*GROUPS, "relay")
    ),
    *(
        Fact(mode, "holdfast_outbox_age_seconds", {"outbox": outbox}, _is_age)
        for mode in ("worker", "consumer")
        for outbox in ("events", "workflows", "jobs")
    ),
    *(
        Fact(mode, "holdfast_oldest_open_order_seconds", {"status": "accepted"}, _is_age)
        for mode in ("worker", "consumer")
    ),
    *(Fact(mode, "holdfast_build_info", {"mode": mode}, _is_one) for mode in MODES),
    *(Fact(mode, "holdfast_redis_up", {}, _is_one) for mode in MODES),
    *(Fact(mode, "holdfast_postgres_up", {}, _is_one) for mode in MODES),
    *(Fact(mode, "holdfast_redis_client_up", {"role": "hot"}, _is_one) for mode in MODES),
    *(Fact(mode, "holdfast_redis_memory_ratio", {}, lambda ratio: 0 < ratio < 1) for mode in MODES),
    *(Fact(mode, "holdfast_redis_command_seconds_count", {"role": "hot"}, _some) for mode in MODES),
    *(Fact(mode, "holdfast_pool_wait_seconds_count", {}, _some) for mode in MODES),
    *(Fact(mode, "holdfast_pool_connections_max", {"pool": mode}, _some) for mode in MODES),
]


def _away(text: dict[str, str]) -> set[str]:
    """Which server a mode says is away: on a busy machine one may answer too late, once."""
    lines = [(mode, line) for mode, said in text.items() for line in said.splitlines()]
    return {f"{mode}: {line}" for mode, line in lines if line.endswith(("_up 0.0", '_up{role="hot"} 0.0'))}


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: "-".join((*fact[:2], *fact.labels.values())))
async def test_what_is_measured_is_so(scraped: Scraped, fact: Fact) -> None:
    """After an order went through, and while nothing is broken."""
    found = value(scraped.families[fact.mode], fact.name, **fact.labels)
    assert fact.holds(found), found


@pytest.mark.parametrize("mode", MODES)
async def test_no_id_and_nothing_personal_is_in_the_metrics(scraped: Scraped, mode: str) -> None:
    """Neither of this order, nor anything that looks like an id."""
    assert [one for one in scraped.personal if one in scraped.text[mode]] == []
    labels = {
        value
        for family in scraped.families[mode].values()
        for sample in family.samples
        for label, value in sample.labels.items()
        if label != "le" and family.name != "python_info"
    }
    assert sorted(value for value in labels if IDS.search(value)) == []


@pytest.mark.parametrize("mode", MODES)
async def test_the_number_of_series_is_bounded(scraped: Scraped, mode: str) -> None:
    """Whoever pays for the metrics pays by the series."""
    samples = sum(len(family.samples) for family in scraped.families[mode].values())
    assert samples < SAMPLES_MAX
