"""`Handler`: what a replay runs, phase by phase. The engine owns transactions, progress, rate and state.

How a handler is added: a class with these members in a file of its own in this package, and one line in
`registry.py`. A projection needs less: one entry in `app/projections/rebuilt.py`.

Every method is called in a transaction that is committed together with how far the replay is, so if the
process dies in it, nothing of it happened and it is called again with the same replay. It may call nothing
that cannot be called again.

    waiting ─prepare→ reading ─read…→ comparing ─compare→ shown ─verify…→ applying ─apply…→ applied

`read` is called until it gives no cursor any more; what it gives as changes is put on record, and that is
what is shown and later given to `verify` and `apply`, in the same order. Nothing live is touched before.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

import msgspec

from app.infra.postgres.pool import Connection
from app.infra.postgres.replays import Asked, Change, Replay

Isolation: TypeAlias = Literal["read_committed", "repeatable_read"]


class MovedError(Exception):
    """The world is not what it was when the changes were shown; the sentence says what moved."""


class Read(msgspec.Struct, frozen=True):
    """What one call of `read` did: where the next goes on (None: all is read), events read, changes found."""

    cursor: str | None
    events: int
    changes: Sequence[Change] = ()


class Handler(Protocol):
    """What a replay runs."""

    @property
    def name(self) -> str:
        """What it is called in `--handler`."""
        ...

    @property
    def about(self) -> str:
        """One line for `--help`."""
        ...

    @property
    def isolation(self) -> Isolation:
        """Of every transaction. In `repeatable_read` a lost race is called again."""
        ...

    @property
    def locks(self) -> tuple[str, ...]:
        """Tables that nobody else writes to while `apply` runs; usually none.

        Whoever locks is quick: no limit of the rate holds for what it applies.
        """
        ...

    @property
    def changes_at_once(self) -> int:
        """How many changes `verify` and `apply` are given at a time."""
        ...

    def check(self, asked: Asked) -> None:
        """Raise Refused (`app.replay.asking.refused`) where it makes no sense to this handler."""
        ...

    async def prepare(self, connection: Connection, replay: Replay) -> int:
        """Get ready; how many events will be read (for the progress that is shown)."""
        ...

    async def read(self, connection: Connection, replay: Replay, size: int) -> Read:
        """Read about `size` events behind `replay.cursor` (None: all) and see what would change."""
        ...

    async def compare(self, connection: Connection, replay: Replay) -> dict[str, Any]:
        """All is read: what is said in sum, as JSON. May put more changes on record (`changes` in it)."""
        ...

    async def verify(self, connection: Connection, replay: Replay, changes: Sequence[Change]) -> None:
        """Look whether these can be made as they were shown. Raises MovedError: then none is made."""
        ...

    async def apply(
        self, connection: Connection, replay: Replay, changes: Sequence[Change]
    ) -> dict[str, Any]:
        """Make these changes, exactly; what is to be added to the summary. Raises MovedError."""
        ...

    async def forget(self, connection: Connection, replay: Replay) -> None:
        """The replay is over: clear away what only it needed. May be called twice."""
        ...


@runtime_checkable
class Telling(Protocol):
    """A handler that has something to tell outside of PostgreSQL when a piece of `apply` is committed."""

    async def tell(self, connection: Connection, before: Replay, after: Replay) -> None:
        """Tell of the changes behind `before.applied` up to `after.applied`, in no transaction.

        It is not called where the process died after the commit, and may not raise where a server is away.
        """
        ...
