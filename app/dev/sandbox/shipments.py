"""The carrier: shipments booked, released, picked up, delivered or cancelled, under our own references.

Owns the table `shipments` and `/v1/shipments/{reference}`. Every answer is durable before it is sent. A
parcel that was released moves by itself: the moment of its next step is stored with it, one timer waits for
the earliest. Each step and the webhook that tells of it are one transaction. If the process dies, steps
that became due meanwhile are taken at the next start, late but all of them, in order.
"""

import asyncio
import re
import secrets
import sqlite3
import time
from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from app.dev.sandbox.control import Control
from app.dev.sandbox.http import Reply, Request, Response
from app.dev.sandbox.store import Store
from app.dev.sandbox.webhooks import Webhooks, enqueue

PREFIX = "/v1/shipments/"
NEXT_STATUS = {"released": "picked_up", "picked_up": "delivered"}
UNDELIVERABLE_COUNTRY = "XX"
STEPS_MAX = 200
TIMER_S_MAX = 60.0  # wall clocks jump; nothing waits longer than this without looking again
_REFERENCE = re.compile(r"[A-Za-z0-9_.\-]{1,100}")
_decode = msgspec.json.decode
_encode = msgspec.json.encode


class Line(msgspec.Struct):
    """`quantity` pieces of one SKU."""

    sku: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    quantity: Annotated[int, msgspec.Meta(ge=1)]


class Booking(msgspec.Struct):
    """What a parcel is: where from, what is in it, where to."""

    warehouse: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    lines: Annotated[list[Line], msgspec.Meta(min_length=1, max_length=5000)]
    address: dict[str, Any] | None = None
    correlation_id: str | None = None


class Shipment(msgspec.Struct):
    """The document that is answered."""

    id: str
    reference: str
    status: str
    tracking_number: str


class CarrierRefusal(Exception):
    """A final no."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code

    def response(self) -> Response:
        """`{"error": {"code", "message"}}`."""
        return Response(self.status, _encode({"error": {"code": self.code, "message": str(self)}}))


class CarrierApi:
    """Answers the carrier's requests and moves its parcels."""

    def __init__(self, store: Store, control: Control, webhooks: Webhooks) -> None:
        self._store = store
        self._control = control
        self._webhooks = webhooks
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._moving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up what was under way when the last process ended."""
        self._arm(await self._store.run(_next_due))

    async def stop(self) -> None:
        """Move no more parcels; what is due is taken at the next start."""
        if self._timer is not None:
            self._timer.cancel()
        if self._moving is not None:
            await asyncio.wait([self._moving])

    async def handle(self, request: Request) -> Reply:
        """Answer one request, or misbehave as the control route asked."""
        try:
            operation, reference = _route(request)
            fault = self._control.draw("carrier", operation)

            async def run() -> Response:
                work = self._work(operation, reference, request.body)
                status, shipment = await self._store.run(work)
                if shipment.status == "released":
                    self._arm(time.time() + self._control.delays.pickup_ms / 1000)
                return Response(status, _encode(shipment))

            return await self._control.perform(fault, run, _failing)
        except CarrierRefusal as refusal:
            return refusal.response()

    def _work(
        self, operation: str, reference: str, body: bytes
    ) -> Callable[[sqlite3.Connection], tuple[int, Shipment]]:
        if operation == "book":
            content = _read_booking(body)
            return lambda database: _book(database, reference, content)
        if operation == "release":
            due = time.time() + self._control.delays.pickup_ms / 1000
            return lambda database: (200, _release(database, reference, due))
        if operation == "cancel":
            return lambda database: (200, _cancel(database, reference))
        return lambda database: (200, _load(database, reference))

    def _arm(self, due: float | None) -> None:
        """See to it that parcels are moved at `due` (unix seconds), unless they are already, sooner."""
        if due is None:
            return
        loop = asyncio.get_running_loop()
        at = loop.time() + min(max(0.0, due - time.time()), TIMER_S_MAX)
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = loop.call_at(at, self._ring)

    def _ring(self) -> None:
        self._timer = None
        if self._moving is None or self._moving.done():
            self._moving = asyncio.get_running_loop().create_task(self._move())
        else:  # still writing the last ones: look again when they are written
            self._moving.add_done_callback(lambda _: self._arm(time.time()))

    async def _move(self) -> None:
        delivery_s = self._control.delays.delivery_ms / 1000
        try:
            moved, due = await self._store.run(
                lambda database: _move_due(database, time.time(), delivery_s), promise=False
            )
        except sqlite3.Error:  # a full disk: the steps are taken when there is room again
            moved, due = 0, time.time() + 1
        if moved:
            self._webhooks.wake()
        self._arm(due)


def _failing(status: int) -> Response:
    if status == 429:
        return CarrierRefusal(429, "too_many_requests", "slow down").response()
    return CarrierRefusal(500, "internal_error", "something went wrong").response()


def _route(request: Request) -> tuple[str, str]:
    reference, _, verb = request.path.removeprefix(PREFIX).partition("/")
    operation = {
        ("PUT", ""): "book",
        ("GET", ""): "track",
        ("POST", "release"): "release",
        ("POST", "cancel"): "cancel",
    }.get((request.method, verb))
    if operation is None:
        raise CarrierRefusal(404, "no_such_route", f"there is no {request.method} {request.path[:200]}")
    if not _REFERENCE.fullmatch(reference):
        raise CarrierRefusal(
            400, "invalid_reference", "references are 1 to 100 letters, digits, `_`, `.` or `-`"
        )
    return operation, reference


def _read_booking(body: bytes) -> bytes:
    """The part of a booking that makes it the same one, in one spelling."""
    try:
        booking = _decode(body, type=Booking)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CarrierRefusal(400, "invalid_booking", str(error)) from error
    if str((booking.address or {}).get("country", "")).upper() == UNDELIVERABLE_COUNTRY:
        raise CarrierRefusal(422, "undeliverable_address", "we do not deliver to this country")
    lines = sorted((line.sku, line.quantity) for line in booking.lines)
    return _encode({"warehouse": booking.warehouse, "lines": lines})


def _load(database: sqlite3.Connection, reference: str) -> Shipment:
    row = database.execute(
        "SELECT id, reference, status, tracking_number FROM shipments WHERE reference = ?", (reference,)
    ).fetchone()
    if row is None:
        raise CarrierRefusal(404, "unknown_shipment", "no shipment has this reference")
    return Shipment(*row)


def _book(database: sqlite3.Connection, reference: str, content: bytes) -> tuple[int, Shipment]:
    row = database.execute("SELECT content FROM shipments WHERE reference = ?", (reference,)).fetchone()
    if row is not None:
        known = _load(database, reference)
        if known.status == "cancelled":
            raise CarrierRefusal(409, "cancelled", "this shipment was cancelled; book another reference")
        if row[0] != content:
            raise CarrierRefusal(409, "booked_otherwise", "this reference was booked with another content")
        return 200, known
    number = "".join(secrets.choice("0123456789") for _ in range(12))
    shipment = Shipment(f"shp_{secrets.token_hex(12)}", reference, "booked", f"SBX{number}")
    database.execute(
        "INSERT INTO shipments (reference, id, status, tracking_number, content) VALUES (?, ?, ?, ?, ?)",
        (reference, shipment.id, shipment.status, shipment.tracking_number, content),
    )
    return 201, shipment


def _release(database: sqlite3.Connection, reference: str, pick_up_at: float) -> Shipment:
    shipment = _load(database, reference)
    if shipment.status == "cancelled":
        raise CarrierRefusal(409, "cancelled", "this shipment was cancelled")
    if shipment.status == "booked":
        shipment.status = "released"
        _set_status(database, shipment, pick_up_at)
    return shipment


def _cancel(database: sqlite3.Connection, reference: str) -> Shipment:
    shipment = _load(database, reference)
    if shipment.status not in ("booked", "cancelled"):
        raise CarrierRefusal(409, "already_released", f"this shipment is {shipment.status}")
    if shipment.status == "booked":
        shipment.status = "cancelled"
        _set_status(database, shipment, None)
    return shipment


def _set_status(database: sqlite3.Connection, shipment: Shipment, next_status_at: float | None) -> None:
    database.execute(
        "UPDATE shipments SET status = ?, next_status_at = ? WHERE reference = ?",
        (shipment.status, next_status_at, shipment.reference),
    )


def _next_due(database: sqlite3.Connection) -> float | None:
    statement = "SELECT min(next_status_at) FROM shipments WHERE next_status_at IS NOT NULL"
    (due,) = database.execute(statement).fetchone()
    return None if due is None else float(due)


def _move_due(database: sqlite3.Connection, now: float, delivery_s: float) -> tuple[int, float | None]:
    """Take every step that is due; how many those were, and when the next one is."""
    rows = database.execute(
        "SELECT id, reference, status, tracking_number FROM shipments WHERE next_status_at <= ?"
        " ORDER BY next_status_at LIMIT ?",
        (now, STEPS_MAX),
    ).fetchall()
    for row in rows:
        shipment = Shipment(*row)
        shipment.status = NEXT_STATUS[shipment.status]
        _set_status(database, shipment, now + delivery_s if shipment.status in NEXT_STATUS else None)
        enqueue(database, shipment.reference, shipment.status, shipment.tracking_number, now)
    return len(rows), _next_due(database)


def counts(database: sqlite3.Connection) -> dict[str, int]:
    """How many shipments there are in each status."""
    return dict(database.execute("SELECT status, count(*) FROM shipments GROUP BY status"))
