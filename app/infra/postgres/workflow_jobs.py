"""Workflow jobs: workflows that Temporal is still to be told of, written with the change that needs them.

The workflow outbox does the same for orders. A job is claimed for a while and deleted when Temporal has taken
it. If the process dies in between, the claim runs out and somebody else tells Temporal again, which changes
nothing: a workflow's id starts once, and signals say only "look".
"""

from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.statements import statements

SQL: Final = statements("workflow_jobs")


class WorkflowJob(msgspec.Struct, frozen=True):
    """A workflow to be started: its `kind` (`contracts.temporal.JOBS`), its id, the struct it is given.

    With a `signal` it is started unless it runs, and signalled; one that has ended is left alone.
    """

    kind: str
    workflow_id: str
    argument: Any
    signal: str | None = None


class ClaimedJob(msgspec.Struct, frozen=True):
    """A job that is ours for a while; `argument` is JSON."""

    id: int
    kind: str
    workflow_id: str
    argument: str
    signal: str | None


async def add(connection: Connection, jobs: Sequence[WorkflowJob]) -> None:
    """Have these told, if the transaction on `connection` is committed. One statement."""
    if jobs:
        rows = [(j.kind, j.workflow_id, msgspec.json.encode(j.argument).decode(), j.signal) for j in jobs]
        await connection.execute(SQL["add"], *zip(*rows, strict=True))


class WorkflowJobs:
    """The jobs that wait. All methods raise Unavailable."""

    def __init__(self, database: Database, kinds: Collection[str]) -> None:
        """Claim jobs of these kinds; others are a newer release's."""
        self._database = database
        self._kinds = list(kinds)

    async def claim(self, limit: int, lease_s: float) -> list[ClaimedJob]:
        """Jobs that nobody works on, kind by kind and the oldest first; ours for `lease_s` seconds."""
        rows = await self._database.fetch(SQL["claim"], limit, lease_s, self._kinds)
        return sorted(
            (ClaimedJob(**row) for row in rows), key=lambda job: (self._kinds.index(job.kind), job.id)
        )

    async def done(self, ids: list[int]) -> None:
        """Temporal has taken these."""
        await self._database.execute(SQL["done"], ids)

    async def give_back(self, ids: list[int], pause_s: float) -> None:
        """These did not get through; not before `pause_s` seconds again."""
        await self._database.execute(SQL["give_back"], ids, pause_s)
