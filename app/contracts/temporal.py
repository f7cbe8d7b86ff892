"""Names and messages of Temporal: task queues, the workflow, its activities, signals, query, attributes.

Only ids, SKUs and amounts travel here: a workflow's history is kept for days and read by many, so personal
data and secrets never enter it. Activities read the rest from PostgreSQL.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from app.domain.events import Reason

QUEUE_ORDERS: Final = "orders"
QUEUE_PAYMENTS: Final = "payments"
QUEUE_INVENTORY: Final = "inventory"
QUEUE_SHIPPING: Final = "shipping"
QUEUE_NOTIFICATIONS: Final = "notifications"
QUEUES: Final = (QUEUE_ORDERS, QUEUE_PAYMENTS, QUEUE_INVENTORY, QUEUE_SHIPPING, QUEUE_NOTIFICATIONS)

ORDER_WORKFLOW: Final = "OrderWorkflow"
SIGNAL_CANCEL: Final = "cancel_requested"
SIGNAL_DELIVERED: Final = "shipment_delivered"
SIGNAL_RETRY: Final = "retry"
QUERY_STATUS: Final = "status"

RESERVE_STOCK: Final = "reserve_stock"
RELEASE_STOCK: Final = "release_stock"
AUTHORIZE_PAYMENT: Final = "authorize_payment"
CAPTURE_PAYMENT: Final = "capture_payment"
VOID_PAYMENT: Final = "void_payment"
BOOK_SHIPMENTS: Final = "book_shipments"
RELEASE_SHIPMENTS: Final = "release_shipments"
TRACK_SHIPMENTS: Final = "track_shipments"
CANCEL_SHIPMENTS: Final = "cancel_shipments"
CANCEL_ORDER: Final = "cancel_order"
CLOSE_ORDER: Final = "close_order"
SET_WAITING: Final = "set_waiting"
ALERT_OPERATOR: Final = "alert_operator"
SEND_WEBHOOK: Final = "send_webhook"


class Job(msgspec.Struct, frozen=True):
    """What a job of one kind starts: a workflow of this type, on this queue."""

    workflow: str
    queue: str


JOB_WEBHOOK: Final = "webhook"
WEBHOOK_WORKFLOW: Final = "WebhookDeliveryWorkflow"
JOB_REPLAY: Final = "replay"
REPLAY_WORKFLOW: Final = "ReplayWorkflow"
CARRY_REPLAY: Final = "carry_replay"

JOBS: Final[Mapping[str, Job]] = {
    JOB_REPLAY: Job(REPLAY_WORKFLOW, QUEUE_ORDERS),
    JOB_WEBHOOK: Job(WEBHOOK_WORKFLOW, QUEUE_NOTIFICATIONS),
}
"""Workflows that are not orders', by the kind of the job that starts them; the first kind goes first."""

ATTRIBUTES: Final = ("OrderId", "CustomerId", "OrderStatus", "WaitingOn", "CorrelationId")
"""Search attributes, all keywords."""


def workflow_id(order_id: str) -> str:
    """The one workflow of an order."""
    return f"order/{order_id}"


def webhook_workflow_id(delivery_id: str, round_: int) -> str:
    """The workflow of a delivery; each time that somebody has it sent again has one of its own."""
    return f"webhook/{delivery_id}" + (f"/{round_}" if round_ > 1 else "")


def replay_workflow_id(replay_id: str) -> str:
    """The workflow of a replay; what was shown and is applied later has one of its own, `…/apply`."""
    return f"replay/{replay_id}"


class OrderInput(msgspec.Struct, frozen=True):
    """What an order's workflow is started with."""

    order_id: str
    customer_id: str
    correlation_id: str


class Step(msgspec.Struct, frozen=True):
    """What a step of an order is asked with; `reason` is why the order is given up, where it is."""

    order_id: str
    correlation_id: str
    reason: Reason | None = None


class Progress(msgspec.Struct, frozen=True):
    """What a step answers: the order's status and version after it, and what is still ahead.

    `reason` is set when the step says for good that the order cannot be carried out. `to_pay` is what it
    costs (minor units), `undelivered` the parcels that are not with the customer.
    """

    status: str
    version: int
    to_pay: int
    undelivered: tuple[str, ...]
    reason: Reason | None = None


class Waiting(msgspec.Struct, frozen=True):
    """Ask to put on record what an order that does not move waits for."""

    order_id: str
    correlation_id: str
    waiting_on: str


class Alert(msgspec.Struct, frozen=True):
    """Ask to tell the operator that `step` failed for good."""

    order_id: str
    correlation_id: str
    step: str
    error: str


class Delivered(msgspec.Struct, frozen=True):
    """The signal that one of an order's parcels was delivered."""

    fulfilment_id: str


class StatusAnswer(msgspec.Struct, frozen=True):
    """What the `status` query answers: as far as the workflow knows."""

    status: str
    step: str | None
    waiting_on: str | None


class ReplayInput(msgspec.Struct, frozen=True):
    """What a replay's workflow is started with."""

    replay_id: str


class ReplayProgress(msgspec.Struct, frozen=True):
    """How far a replay is: its state, events read of all, rows that differ, and how many are applied."""

    state: str
    is_over: bool
    done: int
    total: int
    changes: int
    applied: int


class WebhookDelivery(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a delivery's workflow is started with.

    `waits_s` are the seconds between attempts where they are not the usual ones; `failures` and `began` (Unix
    seconds) are what came before: in the workflow that continued as new, or (`is_begun_here`) before the
    delivery waited in PostgreSQL; then its first attempt is made on the spot.
    """

    delivery_id: str
    round: int
    waits_s: tuple[float, ...] | None = None
    failures: int = 0
    began: float | None = None
    is_begun_here: bool = False


class WebhookAttempt(msgspec.Struct, frozen=True):
    """Ask for an attempt. When it fails there is another one in `wait_s` seconds, or none (None).

    `may_wait`: whether there is time to leave the endpoint alone first.
    """

    delivery_id: str
    round: int
    wait_s: float | None
    may_wait: bool


class WebhookOutcome(msgspec.Struct, frozen=True):
    """What became of it: the delivery's state, when it is due again.

    Or `superseded` by a later round, or `waiting` for its turn in PostgreSQL: then another workflow begins.
    """

    state: str
    was_sent: bool
    again_in_s: float
