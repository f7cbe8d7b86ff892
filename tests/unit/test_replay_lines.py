"""How `holdfast replay` writes a row that differs."""

import pytest

from app.infra.postgres.replays import change
from app.replay.lines import row

MINUTE = {"minute": "2026-11-21T12:00:00+00:00", "kind": "captured", "key": "USD"}


@pytest.mark.parametrize(
    ("key", "before", "after", "line"),
    [
        (
            {"order": "ord_1", "currency": "USD"}, {"total": 1234550}, {"total": 1450},
            "ord_1 USD  total 1,234,550 → 1,450 (-1,233,100)",
        ),
        (MINUTE, None, {"value": 12000, "x": 0}, "2026-11-21T12:00:00Z captured USD  missing: value 12,000"),
        (MINUTE, {"value": 7}, None, "2026-11-21T12:00:00Z captured USD  too much: value 7"),
        (
            {"customer_id": "cust-1"},
            {"last_order_at": "2026-11-21T12:00:00.25+00:00", "vip": True},
            {"last_order_at": None, "vip": False},
            "cust-1  last_order_at 2026-11-21T12:00:00.25Z → null  vip true → false",
        ),
    ],
)  # fmt: skip
def test_numbers_are_grouped_and_times_end_with_z(key, before, after, line):
    """As in the sums below the rows, and as everywhere else."""
    assert row(change(key, before, after)) == line
