"""Sides whose samples are written down beforehand, for the tests of this folder."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat

from bench.harness import BLOCKS_MIN, Contest, Effect, Figure, Side, Unavailable
from bench.samples import Sample


class Scripted(Side):
    """Does what its list says, run by run, and writes each run into `diary`."""

    def __init__(self, name: str, rates: Sequence[float] = (), diary: list[str] | None = None) -> None:
        self.name = name
        self.rates: Iterator[float] = iter(rates) if rates else repeat(100.0)
        self.diary = diary if diary is not None else []
        self.is_open = False

    async def open(self) -> None:
        """Be there."""
        self.is_open = True

    async def close(self) -> None:
        """Be gone."""
        self.is_open = False

    async def run(self, seconds: float) -> Sample:
        """Take the next from the list."""
        assert self.is_open
        self.diary.append(self.name)
        return Sample(next(self.rates), 1.0, {"client": 0.5}, {"p50_ms": 7.0})


class Nowhere(Scripted):
    """Cannot be had here."""

    async def open(self) -> None:
        """Refuse."""
        raise Unavailable("no wheel for this platform")


def contest(ours: Side, *references: Side, found: float | None = None, **changes) -> Contest:
    """A contest with one figure; with `found`, so many effects are there of those that should be."""

    async def effects(done: Mapping[str, float]) -> list[Effect]:
        return [Effect("orders", sum(done.values()), found)]

    defaults = {"figures": [Figure("get_vs_other", goal=12)], "effects": None if found is None else effects}
    return Contest(ours, references, **(defaults | changes))


RUNS = 1 + 2 * BLOCKS_MIN
"""Of one side in a contest, the warm-up included."""
