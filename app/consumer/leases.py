"""Who reads what: this process's share of the shards of each group, taken, kept and handed back.

A group's living processes have equal shares; a process that has more than its share gives the rest back as
soon as the batch under way is done. One that is handed a shard finds what the last owner left pending. If the
process dies here, the others notice within a second and a half and take its shards at once.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from app.consumer.patience import Patience
from app.infra.postgres.leases import LEASE_S, ShardLeases, View
from app.observability import metrics
from app.observability.logging import logger

BEAT_S: Final = 0.5
GRACE_S: Final = 0.02
"""How long after another's end is looked whether it really ended."""

log = logger("leases")


class Holding:
    """The shards of one group that this process has. A reader looks here before each batch."""

    def __init__(self, group: str) -> None:
        """Hold nothing."""
        self.group = group
        self.changed = asyncio.Event()
        self.batches = 0
        """How many batches the reader has finished; it counts them here."""
        self.is_busy = False
        """Whether it is in the middle of one."""
        self._tokens: dict[int, int] = {}
        self._until = 0.0
        self._leaving: dict[int, int] = {}

    @property
    def tokens(self) -> dict[int, int]:
        """Shard → token. Empty when it is too long ago that PostgreSQL said so."""
        return dict(self._tokens) if time.monotonic() < self._until else {}

    def is_confirmed(self, shard: int, token: int, after: float) -> bool:
        """Whether PostgreSQL was asked after that moment (monotonic), and this is the shard's token."""
        return self._until - LEASE_S > after and self.tokens.get(shard) == token

    def set(self, tokens: Mapping[int, int], until: float) -> None:
        """These are held until then (monotonic), and no others."""
        if self.tokens != tokens:
            self.changed.set()
        if self._tokens != tokens:
            self._tokens = dict(tokens)
            log.info("shards", group=self.group, shards=sorted(tokens))
        self._until = until

    def doubt(self) -> None:
        """Another process has one of these by now: hold nothing until it is clear which."""
        self._until = 0.0

    def leave(self, shards: Sequence[int]) -> None:
        """Read no more from these, which are to be given back once no batch can hold any of them."""
        for shard in shards:
            self._leaving.setdefault(shard, self.batches + self.is_busy)

    def stay(self) -> None:
        """Keep what was to be given back and was not yet."""
        self._leaving.clear()

    @property
    def leaving(self) -> frozenset[int]:
        """What is to be given back."""
        return frozenset(self._leaving)

    def left(self) -> list[int]:
        """What of it no batch holds any more."""
        return [shard for shard, batch in self._leaving.items() if self.batches >= batch]


class Leases:
    """Keeps the holdings of this process."""

    def __init__(self, leases: ShardLeases, groups: Sequence[str], shards: int) -> None:
        """Share so many shards of each group with other processes."""
        self._leases = leases
        self._shards = shards
        self.holdings = {group: Holding(group) for group in groups}

    def serve_metrics(self) -> None:
        """Serve how many shards there are, and how many of them this process holds for each group."""
        metrics.SHARDS.set(self._shards)
        for group, holding in self.holdings.items():
            name = group.partition("/")[0]  # the relay's says how many shards there are
            metrics.SHARDS_HELD.labels(name).set_function(partial(_count, holding))

    async def run(self, patience: Patience) -> None:
        """Take, keep and give back. Raises Unavailable; until it goes on nothing is held."""
        while True:
            started = time.monotonic()
            views = await self._leases.beat()
            soonest = BEAT_S
            for group, holding in self.holdings.items():
                await self._share(holding, views[group], started + LEASE_S)
                soonest = min([soonest, *self._ends(views[group])])
            patience.well()
            await asyncio.sleep(max(GRACE_S, soonest - (time.monotonic() - started)))

    def _ends(self, view: View) -> list[float]:
        """In how many seconds other members are dead, unless they say something until then."""
        return [s + GRACE_S for member, s in view.members.items() if member != self._leases.member]

    async def _share(self, holding: Holding, view: View, until: float) -> None:
        """Come to this process's share of one group."""
        mine = {lease.shard: lease.token for lease in view.leases if lease.owner == self._leases.member}
        share = -(-self._shards // max(1, len(view.members)))
        if len(mine) > share:
            holding.leave(sorted(mine)[share:])
        else:
            holding.stay()
        holding.set({shard: mine[shard] for shard in mine if shard not in holding.leaving}, until)
        left = holding.left()
        if left:
            await self._leases.give_up(holding.group, left)
            holding.stay()
        elif len(mine) < share and any(lease.owner not in view.members for lease in view.leases):
            taken = await self._leases.take(holding.group, share - len(mine))
            holding.set(mine | taken, until)

    async def leave(self) -> None:
        """Hand everything back, at once. Raises Unavailable."""
        for holding in self.holdings.values():
            holding.set({}, 0.0)
        await self._leases.leave()


def _count(holding: Holding) -> float:
    return len(holding.tokens)
