"""The audit of the daily seals: each is hashed anew, follows the one before, and covers its day's events.

Where a day is not what was sealed, its leaves say which events came later or were written anew. It reads a
batch at a time. If the process dies here, nothing is lost but the time.
"""

from collections.abc import AsyncIterator, Callable, Container
from datetime import UTC, date, timedelta
from typing import Final

from app.domain.chain import Break
from app.domain.seals import DayOfEvents, Seal, seal_hash
from app.infra.postgres.pool import Connection
from app.infra.postgres.seals import SETTLE, SHORT_BYTES, SQL, events_of_day, moments_of

PAGE_SEALS_MAX: Final = 100
_DAY: Final = timedelta(days=1)


class SealAudit:
    """Checks the seals of one database. `seals` is how many it has seen, `last` the newest of them."""

    def __init__(
        self, connection: Connection, report: Callable[[Break], None], dropped: Container[date] = ()
    ) -> None:
        """Read on a connection of its own, and report each break when it is found.

        The events of `dropped` months (their first days) are in an archive: somebody else looks at them.
        """
        self._connection = connection
        self._report = report
        self._dropped = dropped
        self.seals = 0
        self.last: Seal | None = None

    async def run(self, begin: date | None = None, end: date | None = None) -> AsyncIterator[int]:
        """Check the seals of all days, or from `begin` to `end`, both with them; after each, how many.

        Raises what PostgreSQL says.
        """
        # One more at the beginning: the first that is asked for must follow it.
        first = date.min if begin is None else begin - _DAY
        last = date.max if end is None else end
        before: Seal | None = None
        while page := await self._connection.fetch(SQL["between"], first, last, PAGE_SEALS_MAX):
            for row in page:
                seal = Seal(*row)
                if begin is None or seal.day >= begin:
                    await self._check(seal, before, is_first=before is None and begin is None)
                    self.seals += 1
                    self.last = seal
                    yield self.seals
                before = seal
            assert before is not None
            first = before.day + _DAY

    async def expect(self, day: date, hash: bytes) -> None:
        """Hold the seal of a day against its hash as it was kept somewhere else."""
        row = await self._connection.fetchrow(SQL["hash"], day)
        if row is None:
            self._report(Break("seal-missing", "its seal, which is known elsewhere, is missing", day=day))
        elif row["hash"] != hash:
            self._report(Break("seal-changed", "its seal is not the one that is known elsewhere", day=day))

    async def overdue(self) -> int:
        """How many days should have a seal by now and have none."""
        due = await self._connection.fetchrow(SQL["due"], SETTLE.total_seconds())
        return 0 if due is None else ((due["at"] - SETTLE).astimezone(UTC).date() - due["day"]).days

    async def _check(self, seal: Seal, before: Seal | None, *, is_first: bool) -> None:
        self._check_alone(seal)
        if is_first:
            await self._check_first(seal)
        elif before is not None:
            self._check_order(seal, before)
        if seal.day.replace(day=1) in self._dropped:
            return
        # One moment for the events and their leaves.
        async with self._connection.transaction(isolation="repeatable_read", readonly=True):
            content = DayOfEvents()
            async for event in events_of_day(self._connection, seal.day):
                content.add(*event)
            if (content.root, content.events) != (seal.root, seal.events):
                detail = f"{content.events} events are not the {seal.events} that were sealed"
                self._report(Break("unlike-its-seal", detail, day=seal.day))
                await self._name(seal)
            elif (content.first_event, content.last_event) != (seal.first_event, seal.last_event):
                self._report(Break("seal-changed", "its first or last event is another", day=seal.day))

    def _check_alone(self, seal: Seal) -> None:
        parts = (seal.day, seal.events, seal.first_event, seal.last_event, seal.root)
        if seal_hash(*parts, seal.previous_seal, seal.sealed_at) != seal.hash:
            self._report(Break("seal-changed", "its hash is not that of its contents", day=seal.day))

    async def _check_first(self, seal: Seal) -> None:
        """The first seal follows none, and nothing happened before its day."""
        if seal.previous_seal is not None:
            self._report(Break("seal-missing", "the seals before it are missing", day=seal.day))
            return
        begin, _ = moments_of(seal.day)
        async with self._connection.transaction(readonly=True):
            async for row in self._connection.cursor(SQL["events_before"], begin, prefetch=1000):
                detail = f"it came after its day was over, and is of a day before the first seal, {seal.day}"
                self._report(Break("unsealed", detail, row["subject"], row["sequence"]))

    def _check_order(self, seal: Seal, before: Seal) -> None:
        days = (seal.day - before.day).days - 1
        if days:
            missing = before.day + _DAY
            detail = f"its seal is missing{f', and the {days - 1} after it' if days > 1 else ''}"
            self._report(Break("seal-missing", detail, day=missing))
        elif seal.previous_seal != before.hash:
            self._report(Break("seal-unlinked", "it does not follow the seal before it", day=seal.day))

    async def _name(self, seal: Seal) -> None:
        """Say which events of a day are not what was sealed, leaf by leaf."""
        day, number = seal.day, 0
        leaf = await self._leaf(day, number)
        if leaf is None and seal.events:
            self._report(
                Break("seal-changed", "its leaves are missing: which events, nobody can say", day=day)
            )
            return
        following = await self._leaf(day, number + 1)
        gone = 0
        async for subject, sequence, hash_ in events_of_day(self._connection, day):
            while following is not None and (subject, sequence) >= following.begin:
                gone += len(leaf.hashes) if leaf else 0
                number += 1
                leaf, following = following, await self._leaf(day, number + 1)
            short = hash_[:SHORT_BYTES]
            if leaf is not None and short in leaf.hashes:
                leaf.hashes.discard(short)
            else:
                detail = f"it came after {day} was sealed, or was written anew since"
                self._report(Break("unsealed", detail, subject, sequence))
        gone += len(leaf.hashes) if leaf else 0
        while following is not None:
            gone += len(following.hashes)
            number += 1
            following = await self._leaf(day, number + 1)
        if gone:
            said = "1 event that was sealed is" if gone == 1 else f"{gone} events that were sealed are"
            self._report(Break("unlike-its-seal", f"{said} gone, or written anew", day=day))

    async def _leaf(self, day: date, number: int) -> "_Leaf | None":
        row = await self._connection.fetchrow(SQL["leaf"], day, number)
        return None if row is None else _Leaf((row["subject"], row["sequence"]), row["hashes"])


class _Leaf:
    """Where a leaf begins, and the short hashes of the events in it."""

    def __init__(self, begin: tuple[str, int], hashes: bytes) -> None:
        """Cut the hashes apart."""
        self.begin = begin
        self.hashes = {hashes[at : at + SHORT_BYTES] for at in range(0, len(hashes), SHORT_BYTES)}
