"""Leases: which process of a consumer group has which of its shards, one at a time.

A member says every half second that it lives; whoever has said nothing for `LEASE_S` is dead, and its shards
are taken by the others. Times are the database's own, so clocks of hosts do not matter. The token of a shard
grows with every change of hands and is looked at in the transaction of each effect: an owner that was thought
dead and comes back commits nothing. If the process dies here, the others have its shards within two seconds.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.statements import statements

SQL: Final = statements("leases")

LEASE_S: Final = 1.5
"""How long a member is believed to live after it last said so."""
STANDSTILL_S: Final = 2.0
"""After how long a transaction that stands still in the middle is given up by the server."""


class LeaseLostError(Exception):
    """Another process has the shard by now: nothing was written, and nothing may be."""


class Lease(msgspec.Struct, frozen=True):
    """One shard of a group: who has it, by which token. The owner may be dead."""

    group: str
    shard: int
    owner: str | None
    token: int


class View(msgspec.Struct, frozen=True):
    """How a group's shards are shared out: living members with the seconds they will live, and the leases."""

    members: Mapping[str, float]
    leases: tuple[Lease, ...]


class ShardLeases:
    """The leases, seen by one member. Every method raises Unavailable."""

    def __init__(self, database: Database, member: str, groups: Sequence[str], shards: int) -> None:
        """Be `member`, a name that no other process has or had, of some groups with so many shards."""
        self._database = database
        self._groups = sorted(groups)
        self._shards = shards
        self.member = member

    async def beat(self) -> dict[str, View]:
        """Say that this member lives; how each of its groups is shared out then."""
        async with self._database.connection() as connection:
            await connection.execute(SQL["beat"], self._groups, self.member, LEASE_S)
            members = await connection.fetch(SQL["members"], self._groups)
            leases = await self._leases(connection)
            if len(leases) < len(self._groups) * self._shards:
                await connection.execute(SQL["make"], self._groups, self._shards)
                leases = await self._leases(connection)
        return {
            group: View(
                {row["member"]: row["lives_s"] for row in members if row["consumer_group"] == group},
                tuple(lease for lease in leases if lease.group == group),
            )
            for group in self._groups
        }

    async def _leases(self, connection: Connection) -> list[Lease]:
        rows = await connection.fetch(SQL["leases"], self._groups, self._shards)
        return [Lease(row["consumer_group"], row["shard"], row["owner"], row["token"]) for row in rows]

    async def take(self, group: str, shards_max: int) -> dict[int, int]:
        """Take over shards that no living member has, at most so many; shard → token."""
        rows = await self._database.fetch(SQL["take"], group, self.member, self._shards, shards_max)
        return {row["shard"]: row["token"] for row in rows}

    async def give_up(self, group: str, shards: Sequence[int]) -> None:
        """Leave some shards to the others."""
        await self._database.execute(SQL["give_up"], group, self.member, list(shards))

    async def leave(self) -> None:
        """Leave everything to the others, and be forgotten."""
        async with self._database.transaction() as connection:
            await connection.execute(SQL["leave"], self.member)
            await connection.execute(SQL["forget"], self.member)


async def guard(connection: Connection, group: str, tokens: Mapping[int, int]) -> None:
    """Have the caller's transaction write only as the owner of these shards; nobody takes them until it ends.

    Call it first in the transaction. Raises LeaseLostError.
    """
    idle_ms = str(int(STANDSTILL_S * 1000))
    held = await connection.fetchval(SQL["guard"], group, list(tokens), list(tokens.values()), idle_ms)
    if held < len(tokens):
        raise LeaseLostError(f"of {len(tokens)} shards of {group} {len(tokens) - held} are another's by now")
