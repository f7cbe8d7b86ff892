"""Dead letters: events that a consumer group could not handle, with the error, and what is to become of them.

A letter and the hold on its subject are written in one transaction, and closed in the transaction in which
its event has its effect after all or is left out: so the events behind it are neither lost nor overtake it.
People only say what is to happen (`retry`, `discard`); a consumer does it. If the process dies here, a letter
that it had claimed is claimed again after half a minute.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import asyncpg
import msgspec

from app.contracts.documents import rfc3339
from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.statements import statements

SQL: Final = statements("dead_letters")

CLAIM_S: Final = 30.0
DECIDED_MAX: Final = 1000
"""About how many letters one statement decides."""
ID_MAX: Final = 2**63 - 1
ERROR_CHARACTERS_MAX: Final = 1000
STACK_CHARACTERS_MAX: Final = 16_000
COUNTED_MAX: Final = 10_000
"""More letters of a group are not counted."""

FAILED: Final = "failed"
UNKNOWN: Final = "unknown"
RETRYING: Final = "retrying"
OPEN: Final = "open"
DISCARDING: Final = "discarding"
WAITING: Final = (RETRYING, OPEN, DISCARDING)
"""The states in which a letter holds its subject."""
STATES: Final = (*WAITING, "handled", "discarded")


class DeadLetter(msgspec.Struct, frozen=True):
    """One event that one group could not handle. `kind` is failed or unknown (a type nobody here knows)."""

    id: int
    consumer_group: str
    subject: str
    sequence: int
    type: str
    kind: str
    state: str
    error: str
    stack: str
    attempts: int
    first_at: datetime
    last_at: datetime


class DeadLetterDocument(msgspec.Struct, frozen=True):
    """A dead letter as operators see it. `kind` is `failed`, or `unknown`: a type that nobody knew yet."""

    id: str
    group: str
    subject: str
    sequence: int
    type: str
    kind: str
    state: str
    error: str
    stack: str
    attempts: int
    first_at: str
    last_at: str


def document(letter: DeadLetter) -> DeadLetterDocument:
    """A letter as operators see it."""
    return DeadLetterDocument(
        id=str(letter.id),
        group=letter.consumer_group,
        subject=letter.subject,
        sequence=letter.sequence,
        type=letter.type,
        kind=letter.kind,
        state=letter.state,
        error=letter.error,
        stack=letter.stack,
        attempts=letter.attempts,
        first_at=rfc3339(letter.first_at),
        last_at=rfc3339(letter.last_at),
    )


class Chosen(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters: those of which all of this is true; what is None is true of every letter.

    `subject` is how the subject begins; `since` and `until` are about the first failure.
    """

    ids: tuple[int, ...] | None = None
    group: str | None = None
    type: str | None = None
    subject: str | None = None
    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None


EVERY: Final = Chosen()


class Failure(msgspec.Struct, frozen=True):
    """Why an event was not handled, as it is kept; `again_in_s` is None when it is not tried by itself."""

    kind: str
    error: str
    stack: str
    again_in_s: float | None

    @property
    def state(self) -> str:
        """The state of a letter that says so."""
        return OPEN if self.again_in_s is None else RETRYING


def _letter(row: asyncpg.Record) -> DeadLetter:
    return DeadLetter(**row)


def _kept(text: str, characters_max: int) -> str:
    """The end of a text as PostgreSQL can keep it: the end of a stack is where it happened."""
    return text.replace("\0", "")[-characters_max:].encode(errors="replace").decode()


class DeadLetters:
    """The letters of all groups. Every method raises Unavailable."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database

    async def add(self, group: str, subject: str, failure: Failure) -> bool:
        """Set aside the event behind the subject's mark; False where the subject is held already."""
        async with self._database.transaction() as connection:
            mark = await connection.fetchval(SQL["hold"], group, subject)
            if mark is None:
                return False
            await connection.execute(
                SQL["add"], group, subject, mark + 1, failure.kind, failure.state,
                _kept(failure.error, ERROR_CHARACTERS_MAX), _kept(failure.stack, STACK_CHARACTERS_MAX),
                failure.again_in_s or 0.0,
            )  # fmt: skip
            return True

    async def due(self, group: str, types: Sequence[str], letters_max: int) -> list[DeadLetter]:
        """Letters that are to be tried or left out now, by whoever knows these types; claimed for CLAIM_S."""
        rows = await self._database.fetch(SQL["due"], group, list(types), CLAIM_S, letters_max)
        return [_letter(row) for row in rows]

    async def failed(self, letter: DeadLetter, failure: Failure) -> None:
        """Another attempt was in vain."""
        await self._database.execute(
            SQL["failed"], letter.id, _kept(failure.error, ERROR_CHARACTERS_MAX),
            _kept(failure.stack, STACK_CHARACTERS_MAX), failure.kind, failure.state,
            failure.again_in_s or 0.0,
        )  # fmt: skip

    async def counts(self, groups: Sequence[str]) -> dict[str, int]:
        """How many letters of each of these groups wait for somebody, up to COUNTED_MAX."""
        rows = await self._database.fetch(SQL["counts"], groups, COUNTED_MAX)
        return {row["consumer_group"]: row["count"] for row in rows}

    async def forget(self) -> None:
        """Delete what was dealt with a month ago."""
        await self._database.execute(SQL["forget"])

    async def page(
        self, after: int, limit: int, chosen: Chosen = EVERY, *, states: Sequence[str] = STATES
    ) -> list[DeadLetter]:
        """Some letters behind the id `after`, in these states, oldest first."""
        rows = await self._database.fetch(
            SQL["page"], after, limit, list(states), *msgspec.structs.astuple(chosen)
        )
        return [_letter(row) for row in rows]

    async def one(self, letter_id: int) -> DeadLetter | None:
        """A letter by its id."""
        rows = await self._database.fetch(SQL["one"], letter_id)
        return _letter(rows[0]) if rows else None

    async def retry(self, chosen: Chosen = EVERY, after: int = 0) -> list[int]:
        """Have letters tried again that wait, behind the id `after`: at most DECIDED_MAX; which of them."""
        return await self._decide(RETRYING, after, chosen)

    async def discard(self, chosen: Chosen = EVERY, after: int = 0) -> list[int]:
        """Have their events left out, for good: at most DECIDED_MAX; which of them, in order."""
        return await self._decide(DISCARDING, after, chosen)

    async def _decide(self, state: str, after: int, chosen: Chosen) -> list[int]:
        rows = await self._database.fetch(
            SQL["decide"], after, DECIDED_MAX, state, *msgspec.structs.astuple(chosen)
        )
        return sorted(row["id"] for row in rows)


async def still_there(connection: Connection, letters: Sequence[DeadLetter]) -> dict[int, str]:
    """In the caller's transaction: which letters are not dealt with, with their states; locked."""
    rows = await connection.fetch(SQL["still_there"], [letter.id for letter in letters])
    return {row["id"]: row["state"] for row in rows}


async def close(connection: Connection, group: str, letters: Mapping[int, str]) -> None:
    """In the caller's transaction: these letters (id → subject) are dealt with, their subjects go on."""
    await connection.execute(SQL["close"], list(letters))
    await connection.execute(SQL["let_go"], group, list(letters.values()))
