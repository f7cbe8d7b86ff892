"""Policies: on which queue each step runs, how long one try may take, and how it is tried again.

Infrastructure errors are tried again for ever, at most a minute apart: an order waits through any outage and
says what it waits for. Refusals are final and are not tried again.
"""

from datetime import timedelta
from typing import Final

import msgspec
from temporalio.common import RetryPolicy

from app.contracts import temporal as t

RETRY: Final = RetryPolicy(
    initial_interval=timedelta(milliseconds=200),
    backoff_coefficient=2.0,
    maximum_interval=timedelta(seconds=10),
    maximum_attempts=0,
)
"""0.2 s, 0.4 s, … 10 s, for ever: after an outage every order moves again within ten seconds."""

ONCE: Final = RetryPolicy(maximum_attempts=1)

QUICK: Final = timedelta(seconds=5)
"""An order that is under way for longer is shown in Temporal's lists as it moves."""

PATIENCE: Final = timedelta(seconds=30)
"""A step that nobody has finished for so long is something the order waits for, and it says so.

A step that fails says so itself, at once; this is for steps that nobody takes up, and longer than a queue
takes that is merely full.
"""

TRACK_FIRST: Final = timedelta(seconds=15)
TRACK_MAX: Final = timedelta(hours=1)
"""How long the carrier may be silent before we ask, doubling from the first to the last."""

HEARTBEAT_TIMEOUT: Final = timedelta(seconds=8)
HEARTBEAT_INTERVAL_S: Final = 2.0
"""A worker that was killed is noticed, and its steps are given to another, within the timeout."""

BOOKKEEPING_TIMEOUT: Final = timedelta(seconds=10)
RPC_TIMEOUT: Final = timedelta(seconds=5)
WORKFLOW_TASK_TIMEOUT: Final = timedelta(seconds=10)


class StepPolicy(msgspec.Struct, frozen=True):
    """Where a step runs and how long one try of it may take."""

    queue: str
    start_to_close: timedelta


_DATABASE: Final = timedelta(seconds=15)
_PROVIDER: Final = timedelta(seconds=45)

STEPS: Final[dict[str, StepPolicy]] = {
    t.RESERVE_STOCK: StepPolicy(t.QUEUE_INVENTORY, _DATABASE),
    t.RELEASE_STOCK: StepPolicy(t.QUEUE_INVENTORY, _DATABASE),
    t.AUTHORIZE_PAYMENT: StepPolicy(t.QUEUE_PAYMENTS, _PROVIDER),
    t.CAPTURE_PAYMENT: StepPolicy(t.QUEUE_PAYMENTS, _PROVIDER),
    t.VOID_PAYMENT: StepPolicy(t.QUEUE_PAYMENTS, _PROVIDER),
    t.BOOK_SHIPMENTS: StepPolicy(t.QUEUE_SHIPPING, _PROVIDER),
    t.RELEASE_SHIPMENTS: StepPolicy(t.QUEUE_SHIPPING, _PROVIDER),
    t.TRACK_SHIPMENTS: StepPolicy(t.QUEUE_SHIPPING, _PROVIDER),
    t.CANCEL_SHIPMENTS: StepPolicy(t.QUEUE_SHIPPING, _PROVIDER),
    t.CANCEL_ORDER: StepPolicy(t.QUEUE_ORDERS, _DATABASE),
    t.CLOSE_ORDER: StepPolicy(t.QUEUE_ORDERS, _DATABASE),
}
"""Activity → its policy."""

WAITS_FOR: Final = frozenset({t.QUEUE_PAYMENTS, t.QUEUE_INVENTORY, t.QUEUE_SHIPPING})
"""Queues whose names an order may wait for."""

WEBHOOK_WAITS_S: Final = (5.0, 300.0, 1800.0, 7200.0, 18_000.0, 36_000.0, 50_400.0, 72_000.0, 86_400.0)
"""5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h: ten attempts in a little more than three days."""
WEBHOOK_JITTER: Final = 0.1
"""Up to so much of a wait is added to it, so that what failed together does not come again together."""
WEBHOOK_GRACE: Final = 1.1
WEBHOOK_GRACE_S: Final = 3600.0
"""How much longer than all its waits a delivery may be under way, because its endpoint is left alone."""
WEBHOOK_ENDS_S: Final = sum(WEBHOOK_WAITS_S) * WEBHOOK_GRACE + WEBHOOK_GRACE_S
WEBHOOK_TIMEOUT: Final = timedelta(seconds=45)

REPLAY_STEPS_MAX: Final = 300
"""So many steps of a replay fill a history, which is about a quarter of an hour; then it begins a new one."""
REPLAY_TIMEOUT: Final = timedelta(minutes=15)
"""One transaction may have to compare tables of many million rows."""
REPLAY_HEARTBEAT_TIMEOUT: Final = timedelta(seconds=6)
