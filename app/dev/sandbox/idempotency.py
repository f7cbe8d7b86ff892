"""Idempotency keys with Stripe's semantics: the first answer again, for a day.

Owns the table `idempotency`. An answer is stored in the transaction of the work it answers, so "done" and
"will be answered the same way" are one fact. While a request runs its key is locked, in memory on purpose:
if the process dies, the work is either committed with its answer or did not happen, and the lock must not
outlive it.
"""

import sqlite3
from typing import NamedTuple

from app.dev.sandbox.http import Response
from app.dev.sandbox.refusals import invalid, key_used_otherwise

KEPT_S = 24 * 3600
KEY_LENGTH_MAX = 255


class Key(NamedTuple):
    """An idempotency key, and the fingerprint of the request that it came with."""

    name: str
    fingerprint: bytes


class Answer(NamedTuple):
    """What a piece of work answers, and whether the key keeps it."""

    status: int
    body: bytes
    kept: bool


def checked(key: str | None) -> str | None:
    """The key, if it is one that may be used. Raises StripeRefusal."""
    if key is not None and len(key) > KEY_LENGTH_MAX:
        raise invalid(f"Idempotency keys are limited to {KEY_LENGTH_MAX} characters.")
    return key or None


def recall(database: sqlite3.Connection, key: Key, now: float) -> Response | None:
    """The stored answer, or None when the key is new or has expired. Raises StripeRefusal when it differs."""
    row = database.execute(
        "SELECT fingerprint, status, body, request_id FROM idempotency WHERE key = ? AND created_at > ?",
        (key.name, now - KEPT_S),
    ).fetchone()
    if row is None:
        return None
    first, status, body, request_id = row
    if first != key.fingerprint:
        raise key_used_otherwise(key.name, endpoint=first[:16] != key.fingerprint[:16])
    return Response(status, body, (("idempotent-replayed", "true"), ("original-request", request_id)))


def remember(database: sqlite3.Connection, key: Key, answer: Answer, request_id: str, now: float) -> None:
    """Store an answer under its key, in the place of an expired one if there is."""
    database.execute(
        "INSERT OR REPLACE INTO idempotency (key, fingerprint, status, body, request_id, created_at)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (key.name, key.fingerprint, answer.status, answer.body, request_id, now),
    )


def forget_expired(database: sqlite3.Connection, now: float, rows_max: int = 5000) -> int:
    """Delete answers older than a day, at most `rows_max` of them; how many that were."""
    statement = (
        "DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency WHERE created_at <= ? LIMIT ?)"
    )
    return database.execute(statement, (now - KEPT_S, rows_max)).rowcount
