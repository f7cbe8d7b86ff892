"""The program serves what docs/METRICS.md says. The acceptance tests hold a real scrape against it."""

import re

import pytest

from app.observability import metrics
from app.observability.request_metrics import RequestMetrics
from tests.metrics_table import MODES, Row, ours

ELSEWHERE = re.compile(r"holdfast_(redis_(?!up)|near_|cache_|order_reads|pool_connections)")
"""Named beside what they count: the hot path's, and the pools'."""


def named(mode: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Name → type and labels of the metrics that a mode serves, but for those that are named elsewhere."""
    found = {}
    for metric in metrics._SERVED[mode]:
        if isinstance(metric, RequestMetrics):
            metric.timer("GET", "/some").count(200, 0.1)
        for family in metric.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            sampled = {label for sample in family.samples for label in sample.labels} - {"le"}
            labels = getattr(metric, "_labelnames", getattr(metric, "_labels", sampled))
            found[name] = (family.type, frozenset(labels))
    return found


def documented(mode: str) -> dict[str, Row]:
    """Its rows of the table, but for those that are named elsewhere."""
    return {name: row for name, row in ours().items() if mode in row.modes and not ELSEWHERE.match(name)}


@pytest.mark.parametrize("mode", MODES)
def test_the_table_is_what_the_program_says(mode):
    """Whoever adds a metric adds its row: name, type, labels and modes."""
    rows = {name: (row.type, row.labels) for name, row in documented(mode).items()}
    assert named(mode) == rows


def test_every_row_says_how_to_add_up_pods():
    """One word: dashboards and rules follow it."""
    assert {row.across for row in ours().values()} == {"sum", "max", "min", "each"}


def test_what_is_counted_is_added_up_and_what_is_measured_elsewhere_is_not():
    """The sum of what every process measures at the same server would grow with the processes."""
    gauges = [row for row in ours().values() if row.type == "gauge"]
    measured = {row.name: row.across for row in gauges if "absent" in row.meaning}
    assert len(measured) > 5
    assert set(measured.values()) == {"max"}
