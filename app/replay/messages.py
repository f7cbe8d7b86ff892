"""A replay and its changes as people and programs see them, over HTTP and with `--json`."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from app.contracts.documents import rfc3339
from app.infra.postgres.replays import Change, Replay


class ReplayProgressDocument(msgspec.Struct, frozen=True):
    """Events read of all that are to be read, how many a second, and about how long it takes yet."""

    done: int
    total: int
    rate_per_s: float | None
    remaining_s: float | None


class ReplayDocument(msgspec.Struct, frozen=True, rename={"since": "from", "until": "to"}):
    """A replay.

    `changes` are the rows that differ, of which `applied` have been changed. `summary` has what they come to
    in sum, and for a projection the number of rows and a hash of their content, live and rebuilt, as they
    were when they were compared: equal hashes are equal tables. `error` says why it was refused, or failed.
    """

    id: str
    handler: str
    state: str
    apply: bool
    since: str | None
    until: str | None
    type: str | None
    order: str | None
    parameters: dict[str, Any]
    rate: int | None
    progress: ReplayProgressDocument
    changes: int
    applied: int
    summary: dict[str, Any]
    error: str | None
    created_at: str
    updated_at: str
    finished_at: str | None


class ChangeDocument(msgspec.Struct, frozen=True):
    """A row that differs: which one, as it was, as it should be (null: not there), and by how much.

    A difference is a number (after less before) or, where it is none, both values.
    """

    number: int
    key: dict[str, Any]
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    difference: dict[str, Any]
    applied: bool


def document(replay: Replay, *, items_max: int | None = None) -> ReplayDocument:
    """A replay as it is shown; `items_max` cuts lists among its parameters, where many replays are shown."""
    wanted = replay.selection
    return ReplayDocument(
        id=replay.id,
        handler=replay.handler,
        state=replay.state,
        apply=replay.is_applied,
        since=_time(wanted.since),
        until=_time(wanted.until),
        type=wanted.type,
        order=wanted.order_id,
        parameters={
            name: value[:items_max] if isinstance(value, list) else value
            for name, value in replay.parameters.items()
        },
        rate=replay.rate_per_s,
        progress=_progress(replay),
        changes=replay.changes,
        applied=replay.applied,
        summary=replay.summary,
        error=replay.error,
        created_at=rfc3339(replay.created_at),
        updated_at=rfc3339(replay.updated_at),
        finished_at=_time(replay.finished_at),
    )


def change_document(replay: Replay, change: Change) -> ChangeDocument:
    """A change as it is shown."""
    return ChangeDocument(
        number=change.number,
        key=change.key,
        before=change.before,
        after=change.after,
        difference=change.difference,
        applied=change.number <= replay.applied,
    )


def _progress(replay: Replay) -> ReplayProgressDocument:
    rate = remaining = None
    if replay.started_at is not None and replay.done:
        took = ((replay.finished_at or datetime.now(UTC)) - replay.started_at).total_seconds()
        exact = replay.done / max(took, 0.001)  # of a few events in hours, too
        rate = round(exact, 1)
        remaining = 0.0 if replay.has_ended else round(max(0, replay.total - replay.done) / exact, 1)
    return ReplayProgressDocument(replay.done, replay.total, rate, remaining)


def _time(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)
