"""The carrier's webhooks: each report sent until the receiver says 2xx, in order per shipment.

Owns the table `webhooks`, which holds only what has not been delivered. Signed as Standard Webhooks say;
the id is the same in every attempt, so that a receiver can tell a repetition. At most `CONCURRENCY` are on
their way.

Repetition: a receiver that cannot be reached is probed by one delivery at a time, after 0.1 s, 0.2 s … 5 s;
a report that is answered with anything but 2xx waits by itself, 0.1 s … 30 s, for three days, and is then
given up. If the process dies after the receiver's 2xx and before that is written, the report is sent again:
at least once.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
import sqlite3
import time
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from app.dev.sandbox.control import Control, Fault
from app.dev.sandbox.store import Store
from app.infra.outbound import CallFailed, Outbound

CONCURRENCY = 8
RETRY_S_FIRST = 0.1
RETRY_S_MAX = 30.0
UNREACHABLE_RETRY_S_MAX = 5.0
GIVEN_UP_AFTER_S = 3 * 24 * 3600
TIMER_S_MAX = 60.0


class Report(NamedTuple):
    """One report that waits."""

    position: int
    id: str
    reference: str
    type: str
    body: bytes
    attempts: int
    created_at: float


def enqueue(
    database: sqlite3.Connection, reference: str, status: str, tracking_number: str, now: float
) -> None:
    """Write a report down, in the transaction of the step it tells of."""
    body = msgspec.json.encode(
        {
            "type": f"shipment.{status}",
            "reference": reference,
            "tracking_number": tracking_number,
            "occurred_at": datetime.fromtimestamp(now, UTC),
        }
    )
    database.execute(
        "INSERT INTO webhooks (id, reference, type, body, created_at, next_at) VALUES (?, ?, ?, ?, ?, ?)",
        (f"msg_{secrets.token_hex(12)}", reference, status, body, now, now),
    )


def sign(secret: bytes, identity: str, timestamp: int, body: bytes) -> str:
    """The `webhook-signature` header: HMAC-SHA256 of `id.timestamp.body`."""
    signed = f"{identity}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()


def backoff_s(attempts: int, longest_s: float) -> float:
    """How long to wait after so many failures in a row."""
    return min(RETRY_S_FIRST * 2.0 ** min(attempts - 1, 20), longest_s)


class Webhooks:
    """Delivers what waits in the table."""

    def __init__(self, store: Store, control: Control, receiver: Outbound | None, secret: bytes) -> None:
        """Without a receiver nothing is sent; reports wait for a process that has one."""
        self._store = store
        self._control = control
        self._receiver = receiver
        self._secret = secret
        self._wake = asyncio.Event()
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._failures = 0
        self._reachable_again_at = 0.0
        self._runner: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Deliver what is left of the last process, and whatever comes."""
        if self._receiver is not None:
            self._wake.set()
            self._runner = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop; a delivery that is on its way is repeated at the next start."""
        tasks = [task for task in (self._runner, *self._under_way.values()) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._receiver is not None:
            await self._receiver.aclose()

    def wake(self) -> None:
        """There is something new to deliver."""
        self._wake.set()

    async def _run(self) -> None:
        """Sleep until something is due, fill the free places, again."""
        while True:
            self._wake.clear()
            try:
                pause_s = await self._fill()
            except sqlite3.Error:  # a full disk: parcels can wait
                self._hold_back()
                pause_s = UNREACHABLE_RETRY_S_MAX
            try:
                await asyncio.wait_for(self._wake.wait(), pause_s)
            except TimeoutError:
                continue

    async def _fill(self) -> float | None:
        """Send what is due; seconds until the next look, or None when only a wake-up can bring work."""
        free = (1 if self._failures else CONCURRENCY) - len(self._under_way)
        now = time.time()
        if free <= 0:
            return None  # whoever finishes wakes us
        if self._failures and now < self._reachable_again_at:
            return self._reachable_again_at - now
        busy = tuple(self._under_way)
        reports = await self._store.run(lambda database: _due(database, now, free, busy), promise=False)
        for report in reports:
            task = asyncio.get_running_loop().create_task(self._deliver(report))
            self._under_way[report.reference] = task
        if len(reports) == free:
            return None
        busy = tuple(self._under_way)
        due = await self._store.run(lambda database: _next_due(database, busy), promise=False)
        return None if due is None else min(max(0.0, due - time.time()), TIMER_S_MAX)

    async def _deliver(self, report: Report) -> None:
        """One attempt, and its outcome written down."""
        try:
            fault = self._control.draw("webhooks", report.type)
            delivered = await self._attempt(report, fault)
            old = time.time() - report.created_at > GIVEN_UP_AFTER_S
            if delivered or old:
                await self._store.run(lambda database: _remove(database, report), promise=False)
            else:
                next_at = time.time() + backoff_s(report.attempts + 1, RETRY_S_MAX)
                await self._store.run(lambda database: _postpone(database, report, next_at), promise=False)
        except (CallFailed, sqlite3.Error):  # also when its outcome cannot be written: it comes again, later
            self._hold_back()
        finally:
            self._under_way.pop(report.reference, None)
            self._wake.set()

    def _hold_back(self) -> None:
        """Wait longer; what fails while we wait already (the others that were on their way) counts once."""
        now = time.time()
        if not self._failures or now >= self._reachable_again_at:
            self._failures += 1
            self._reachable_again_at = now + backoff_s(self._failures, UNREACHABLE_RETRY_S_MAX)

    async def _attempt(self, report: Report, fault: Fault | None) -> bool:
        """Send it; whether the receiver took it. Raises CallFailed."""
        assert self._receiver is not None
        mode = None if fault is None else fault.mode
        if mode == "mute":
            return True  # swallowed: the receiver never hears of this one
        secret = b"not the secret" if mode == "bad_signature" else self._secret
        timestamp = int(time.time())
        headers = [
            ("content-type", "application/json"),
            ("webhook-id", report.id),
            ("webhook-timestamp", str(timestamp)),
            ("webhook-signature", sign(secret, report.id, timestamp, report.body)),
        ]
        answer = await self._receiver.call("POST", "", headers, report.body)
        if mode == "duplicate":
            answer = await self._receiver.call("POST", "", headers, report.body)
        self._failures = 0
        return 200 <= answer.status < 300


_FIRST_OF_SHIPMENT = (
    "NOT EXISTS (SELECT 1 FROM webhooks AS earlier"
    " WHERE earlier.reference = webhooks.reference AND earlier.position < webhooks.position)"
)


def _due(database: sqlite3.Connection, now: float, limit: int, busy: tuple[str, ...]) -> list[Report]:
    """Reports to send now: of each shipment the first one only, none that is on its way."""
    marks = ",".join("?" * len(busy))
    statement = (
        "SELECT position, id, reference, type, body, attempts, created_at FROM webhooks"  # noqa: S608
        f" WHERE next_at <= ? AND reference NOT IN ({marks}) AND {_FIRST_OF_SHIPMENT}"
        " ORDER BY next_at LIMIT ?"
    )
    return [Report(*row) for row in database.execute(statement, (now, *busy, limit))]


def _next_due(database: sqlite3.Connection, busy: tuple[str, ...]) -> float | None:
    marks = ",".join("?" * len(busy))
    statement = (
        f"SELECT next_at FROM webhooks WHERE reference NOT IN ({marks})"  # noqa: S608
        f" AND {_FIRST_OF_SHIPMENT} ORDER BY next_at LIMIT 1"
    )
    row = database.execute(statement, busy).fetchone()
    return None if row is None else float(row[0])


def _remove(database: sqlite3.Connection, report: Report) -> None:
    database.execute("DELETE FROM webhooks WHERE position = ?", (report.position,))


def _postpone(database: sqlite3.Connection, report: Report, next_at: float) -> None:
    database.execute(
        "UPDATE webhooks SET attempts = attempts + 1, next_at = ? WHERE position = ?",
        (next_at, report.position),
    )


def count(database: sqlite3.Connection) -> int:
    """How many reports wait."""
    (waiting,) = database.execute("SELECT count(*) FROM webhooks").fetchone()
    return int(waiting)
