"""Replays on record: what was asked for, how far each is, and the rows that it would change or has changed.

Asking, and deciding on what was shown, is one transaction with the job that has the workflow started. Whoever
carries a replay on saves how far it is in the transaction of what was done, so if the process dies here, the
next one goes on exactly there.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg
import msgspec

from app.contracts.temporal import JOB_REPLAY, ReplayInput, replay_workflow_id
from app.domain.errors import Refusal, Refused
from app.infra.postgres import workflow_jobs
from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.statements import statements
from app.infra.postgres.workflow_jobs import WorkflowJob

SQL: Final = statements("replays")

WAITING: Final = "waiting"
READING: Final = "reading"
COMPARING: Final = "comparing"
SHOWN: Final = "shown"
CHECKING: Final = "checking"
APPLYING: Final = "applying"
APPLIED: Final = "applied"
REFUSED: Final = "refused"
CANCELLED: Final = "cancelled"
FAILED: Final = "failed"
STATES: Final = (
    WAITING, READING, COMPARING, SHOWN, CHECKING, APPLYING, APPLIED, REFUSED, CANCELLED, FAILED
)  # fmt: skip
ENDED: Final = frozenset({SHOWN, APPLIED, REFUSED, CANCELLED, FAILED})
"""The states in which nothing goes on by itself."""
_UNFINISHED: Final = frozenset({WAITING, READING, COMPARING, SHOWN, CHECKING, APPLYING})

NOT_NOW: Final = "replay-not-now"
ALONE: Final = "replays_are_applied_alone"
"""The constraint that two of one handler are not applied at a time."""

Json = Mapping[str, Any]


class Selection(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which events: from `since`, before `until`, of one type, of one order. None: all of them."""

    since: datetime | None = None
    until: datetime | None = None
    type: str | None = None
    order_id: str | None = None


class Asked(msgspec.Struct, frozen=True):
    """What somebody wants. `rate_per_s`: events a second at most; `parameters` are the handler's own."""

    handler: str
    selection: Selection = Selection()
    parameters: dict[str, Any] = {}
    rate_per_s: int | None = None
    is_applied: bool = False


class Replay(msgspec.Struct, frozen=True):
    """A replay as it is on record. `total` and `done` count events, `changes` rows.

    `checked` and `applied` are the numbers of the last change that was looked at again, and made.
    """

    id: str
    handler: str
    selection: Selection
    parameters: dict[str, Any]
    rate_per_s: int | None
    is_applied: bool
    state: str
    cursor: str | None
    total: int
    done: int
    changes: int
    checked: int
    applied: int
    summary: dict[str, Any]
    error: str | None
    created_at: datetime
    started_at: datetime | None
    updated_at: datetime
    finished_at: datetime | None

    @property
    def has_ended(self) -> bool:
        """Whether nothing goes on by itself."""
        return self.state in ENDED


class Change(msgspec.Struct, frozen=True):
    """A row that differs: which one, as it is, as it should be (None: not there), and the difference.

    `number` counts a replay's changes from 1; 0 for one that is not on record yet.
    """

    key: dict[str, Any]
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    difference: dict[str, Any]
    number: int = 0


def change(key: Json, before: Json | None, after: Json | None) -> Change:
    """A change with its difference: after less before of numbers (a missing row counts nought), else both."""
    difference: dict[str, Any] = {}
    for name in {**(before or {}), **(after or {})}:
        was, becomes = (before or {}).get(name), (after or {}).get(name)
        if was == becomes:
            continue
        numbers = [value for value in (was, becomes) if value is not None]
        if all(isinstance(value, int) and not isinstance(value, bool) for value in numbers):
            difference[name] = (becomes or 0) - (was or 0)
        else:
            difference[name] = [was, becomes]
    return Change(
        dict(key),
        None if before is None else dict(before),
        None if after is None else dict(after),
        difference,
    )


def replay_of(row: asyncpg.Record) -> Replay:
    """A replay from its row."""
    values = dict(row)
    for name, kind in (("selection", Selection), ("parameters", dict), ("summary", dict)):
        values[name] = msgspec.json.decode(values[name], type=kind)
    return Replay(**values)


def change_of(row: asyncpg.Record) -> Change:
    """A change from its row."""
    before, after = row["before"], row["after"]
    return Change(
        key=msgspec.json.decode(row["key"]),
        before=None if before is None else msgspec.json.decode(before),
        after=None if after is None else msgspec.json.decode(after),
        difference=msgspec.json.decode(row["difference"]),
        number=row["number"],
    )


async def insert(connection: Connection, id: str, asked: Asked) -> Replay:
    """Put a replay on record and have its workflow started, in the caller's transaction."""
    row = await connection.fetchrow(
        SQL["insert"],
        id,
        asked.handler,
        msgspec.json.encode(asked.selection).decode(),
        msgspec.json.encode(asked.parameters).decode(),
        asked.rate_per_s,
        asked.is_applied,
    )
    assert row is not None
    await _tell(connection, id, "")
    return replay_of(row)


async def lock(connection: Connection, id: str) -> Replay:
    """A replay that nobody else changes until the caller's transaction ends. Raises LookupError."""
    row = await connection.fetchrow(SQL["locked"], id)
    if row is None:
        raise LookupError(id)
    return replay_of(row)


async def save(connection: Connection, replay: Replay) -> None:
    """Put on record how far a replay is."""
    await connection.execute(
        SQL["save"],
        replay.id,
        replay.state,
        replay.cursor,
        replay.total,
        replay.done,
        replay.changes,
        replay.checked,
        replay.applied,
        msgspec.json.encode(replay.summary).decode(),
        replay.error,
        replay.has_ended,
    )


async def ask_to_apply(connection: Connection, id: str) -> Replay:
    """Have what was shown applied. Asking again is nothing new. Raises LookupError, and Refused."""
    replay = await lock(connection, id)
    if replay.is_applied and replay.state not in {REFUSED, FAILED, CANCELLED}:
        return replay
    if replay.state != SHOWN:
        raise Refused(Refusal(NOT_NOW, f"This replay is {replay.state}; only one that is shown is applied."))
    if replay.summary.get("expired"):
        raise Refused(Refusal(NOT_NOW, "This was shown too long ago: show it again, and apply that."))
    try:
        async with connection.transaction():
            row = await connection.fetchrow(SQL["apply"], id)
    except asyncpg.UniqueViolationError:
        detail = f"Another replay of {replay.handler} is being applied. Ask again when it has ended."
        raise Refused(Refusal(NOT_NOW, detail)) from None
    await _tell(connection, id, "/apply")
    assert row is not None
    return replay_of(row)


async def cancel(connection: Connection, id: str) -> Replay:
    """Stop a replay that has changed nothing yet. Asking again is nothing new. Raises LookupError, Refused.

    Each piece of work holds the lock, so what this sees of one that is being applied is what will have been.
    """
    replay = await lock(connection, id)
    if replay.state == CANCELLED:
        return replay
    if replay.state not in _UNFINISHED:
        raise Refused(Refusal(NOT_NOW, f"This replay is {replay.state}: it can only be stopped before."))
    if replay.applied:
        detail = f"This replay has changed {replay.applied} of {replay.changes} rows already: it goes on."
        raise Refused(Refusal(NOT_NOW, detail))
    row = await connection.fetchrow(SQL["cancel"], id)
    assert row is not None
    await _tell(connection, id, "/end")  # somebody clears away what it needed
    return replay_of(row)


async def resume(connection: Connection, replay: Replay) -> None:
    """Have a replay carried on that nobody seems to carry. If somebody does, nothing is done twice."""
    await _tell(connection, replay.id, f"/resumed-{replay.done}-{replay.applied}")


async def add_changes(connection: Connection, replay_id: str, behind: int, changes: Sequence[Change]) -> None:
    """Put more changes on record, numbered on from `behind`."""
    if changes:
        numbers = list(range(behind + 1, behind + 1 + len(changes)))
        columns = zip(
            *((_text(c.key), _text(c.before), _text(c.after), _text(c.difference)) for c in changes),
            strict=True,
        )
        await connection.execute(SQL["add_changes"], replay_id, numbers, *columns)


async def changes_behind(connection: Connection, replay_id: str, number: int, limit: int) -> list[Change]:
    """The next changes behind a number."""
    return [change_of(row) for row in await connection.fetch(SQL["changes"], replay_id, number, limit)]


async def sums(connection: Connection, replay_id: str, by: Sequence[str]) -> dict[str, dict[str, int]]:
    """What the differences come to: values of some parts of the keys → column → sum."""
    found: dict[str, dict[str, int]] = {}
    for row in await connection.fetch(SQL["sums"], replay_id, list(by)):
        if value := int(row["value"]):
            found.setdefault(row["of"], {})[row["name"]] = value
    return found


class PostgresReplays:
    """Replays, for readers. Every method raises Unavailable."""

    def __init__(self, database: Database) -> None:
        """Read this database."""
        self._database = database

    async def one(self, id: str) -> Replay | None:
        """A replay; None when there is no such one."""
        rows = await self._database.fetch(SQL["one"], id)
        return replay_of(rows[0]) if rows else None

    async def page(
        self, behind: str | None, limit: int, *, handler: str | None = None, state: str | None = None
    ) -> list[Replay]:
        """Replays, newest first."""
        rows = await self._database.fetch(SQL["page"], behind or "~", handler, state, limit)
        return [replay_of(row) for row in rows]

    async def changes(self, id: str, behind: int, limit: int) -> list[Change]:
        """The next changes of a replay behind a number."""
        async with self._database.connection() as connection:
            return await changes_behind(connection, id, behind, limit)


async def _tell(connection: Connection, id: str, what: str) -> None:
    job = WorkflowJob(JOB_REPLAY, replay_workflow_id(id) + what, ReplayInput(id))
    await workflow_jobs.add(connection, [job])


def _text(value: Json | None) -> str | None:
    return None if value is None else msgspec.json.encode(value).decode()
