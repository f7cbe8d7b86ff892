"""Owns how two sides are compared: interleaved, in pairs, with what they left behind counted afterwards.

A benchmark is a module of this package with `NAME` and

    @asynccontextmanager
    async def benchmark(setting: Setting) -> AsyncIterator[Sequence[Contest]]: ...

which starts the servers, yields its contests, and stops the servers. A contest has our side, one or more
references, and the figures that are read from them; its sides run A B B A, five blocks of that or more, and
every ratio is taken within one A B or B A, so what else the machine does meets both sides alike.

Guarantees: a ratio is never made of samples of different blocks; a contest whose effects do not match what
its sides say they did raises EffectsDiffer, and none of its figures is shown. If the process dies here,
servers that follow it end with it, and no file was written.
"""

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from bench.processor import Processes
from bench.samples import BenchmarkFailed, Reading, Sample, Spread, in_series, rate

BLOCKS_MIN = 5
Better = Literal["higher", "lower"]


class EffectsDiffer(BenchmarkFailed):
    """What the servers hold afterwards is not what the sides say they did."""


class Unavailable(Exception):
    """A peer cannot be had here; the benchmark goes on without it and says why."""


class Side:
    """Something that does operations for a while. Inherit, set `name`, and write `run`.

    `processes` maps names to pids: the harness reads their processor time (children included) around every
    run and adds it to the sample under that name, unless the sample has it already.
    """

    name: str
    processes: Mapping[str, int] = {}

    async def open(self) -> None:
        """Get ready; called once, before anything is measured. A peer may raise Unavailable."""

    async def close(self) -> None:
        """Let go of what `open` took; called even where `open` failed."""

    async def run(self, seconds: float) -> Sample:
        """Do operations for about this long and say what was done."""
        raise NotImplementedError


class InSeries(Side):
    """A reference made of several: each operation would pass through all of them, one after the other."""

    def __init__(self, name: str, *sides: Side) -> None:
        self.name = name
        self.sides = sides

    async def open(self) -> None:
        """Open each."""
        for side in self.sides:
            await side.open()

    async def close(self) -> None:
        """Close each."""
        for side in self.sides:
            await side.close()

    async def run(self, seconds: float) -> Sample:
        """Run each for its share of the time; its rate is 1 / Σ (1 / rate)."""
        parts = [(side.name, await measure(side, seconds / len(self.sides))) for side in self.sides]
        return in_series(parts)


@dataclass(frozen=True, slots=True)
class Figure:
    """One ratio, ours to the reference, as the contract names it.

    `of` reads the value from a sample (operations a second by default); `reference` names the side it is
    compared with (by default the contest's first reference). A figure for information has no goal (None) and
    may name a peer; it is left out where that cannot be had.
    """

    name: str
    goal: float | None
    unit: str = "1/s"
    better: Better = "higher"
    of: Reading = rate
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Effect:
    """Something durable that must be there afterwards: how many there should be, and how many there are."""

    what: str
    expected: float
    found: float


Count = Callable[[Mapping[str, float]], Awaitable[Sequence[Effect]]]


@dataclass(frozen=True, slots=True)
class Contest:
    """Sides that are compared, and the figures read from them.

    `seconds` is one run of one side; `blocks` is how many A B B A. Peers run once a block, for information.
    `effects` is given the operations that each side says it did in all (warm-up included, by name of side)
    and counts what is there.
    """

    ours: Side
    references: Sequence[Side]
    figures: Sequence[Figure]
    peers: Sequence[Side] = ()
    effects: Count | None = None
    seconds: float = 1.0
    warm_up_s: float = 0.5
    blocks: int = BLOCKS_MIN

    def __post_init__(self) -> None:
        assert self.blocks >= BLOCKS_MIN, f"at least {BLOCKS_MIN} blocks"
        names = [side.name for side in self.sides]
        assert len(names) == len(set(names)), f"sides need names of their own: {names}"
        references, peers = ({side.name for side in sides} for sides in (self.references, self.peers))
        for figure in self.figures:
            name = figure.reference or self.references[0].name
            assert name in references or (name in peers and figure.goal is None), f"{figure.name}: {name}"

    @property
    def sides(self) -> list[Side]:
        """All of them: ours, the references, the peers."""
        return [self.ours, *self.references, *self.peers]


class Progress(Protocol):
    """Who is told how far a benchmark is."""

    def say(self, text: str) -> None:
        """Something worth a line."""

    def step(self, done: int, of: int, what: str) -> None:
        """So many runs of so many are done; this one comes next."""


@dataclass(slots=True)
class Setting:
    """What a benchmark is given: a folder for its data and its logs, and ears.

    `versions` goes into the result as the versions of the servers. Files named *.log are kept and their
    paths printed; everything else in the folder is removed afterwards.
    """

    folder: Path
    progress: Progress
    versions: dict[str, str] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Tell the person who waits."""
        self.progress.say(text)

    def log(self, name: str) -> Path:
        """Where something named so should write its log."""
        return self.folder / f"{re.sub(r'[^A-Za-z0-9]+', '-', name)}.log"


Benchmark = Callable[[Setting], AbstractAsyncContextManager[Sequence[Contest]]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One figure, measured: the middle of each side's own values, and the spread of the ratios of pairs."""

    figure: Figure
    ours: Spread
    reference: Spread
    ratio: Spread
    ratios: tuple[float, ...]
    reference_name: str
    contest: "Measured"

    @property
    def is_met(self) -> bool | None:
        """Whether the median reaches the goal; None where there is none."""
        goal = self.figure.goal
        if goal is None:
            return None
        return self.ratio.median >= goal if self.figure.better == "higher" else self.ratio.median <= goal


@dataclass(slots=True)
class Measured:
    """All that a contest gave: the samples of each side in the order they were taken, by its name."""

    contest: Contest
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)
    missing_peers: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, sample: Sample, *, warm_up: bool = False) -> None:
        """Keep a sample; one of the warm-up counts only for the effects."""
        if not warm_up:
            self.samples.setdefault(name, []).append(sample)
        for part, made_of in sample.parts or ((name, sample),):
            self.totals[part] = self.totals.get(part, 0.0) + made_of.operations

    def outcomes(self) -> list[Outcome]:
        """Each figure with its ratios, pair by pair."""
        return [
            self._outcome(figure)
            for figure in self.contest.figures
            if figure.reference not in self.missing_peers
        ]

    def _outcome(self, figure: Figure) -> Outcome:
        name = figure.reference or self.contest.references[0].name
        ours = [figure.of(sample) for sample in self.samples[self.contest.ours.name]]
        reference = [figure.of(sample) for sample in self.samples[name]]
        if not all(value > 0 for value in reference):
            raise BenchmarkFailed(f"{figure.name}: {name} measured nothing")
        pairs = ours
        if len(reference) < len(ours):  # a peer, which runs once where we run twice
            pairs = [(first + second) / 2 for first, second in zip(ours[::2], ours[1::2], strict=True)]
        ratios = tuple(a / b for a, b in zip(pairs, reference, strict=True))
        return Outcome(figure, Spread.of(ours), Spread.of(reference), Spread.of(ratios), ratios, name, self)


async def measure(side: Side, seconds: float) -> Sample:
    """Run a side once, with the processor time of its processes."""
    processes = Processes(side.processes)
    before = processes.cpu_s()
    sample = await side.run(seconds)
    after = processes.cpu_s()
    used = {name: after[name] - before[name] for name in after}
    # A compound's costs are already an operation's; processes read around the whole of it would not be.
    return sample if sample.parts else replace(sample, cpu_s=used | dict(sample.cpu_s))


async def run_contest(contest: Contest, progress: Progress) -> Measured:
    """Measure one contest and count its effects.

    Raises BenchmarkFailed (EffectsDiffer where the counts do not match), and whatever a side raises.
    """
    measured = Measured(contest)
    async with AsyncExitStack() as stack:
        peers = []
        for side in contest.sides:
            stack.push_async_callback(side.close)
            try:
                await side.open()
            except Unavailable as reason:
                if side not in contest.peers:
                    raise BenchmarkFailed(f"{side.name} cannot be had here: {reason}") from reason
                measured.missing_peers[side.name] = str(reason)
                progress.say(f"without {side.name}: {reason}")
                continue
            if side in contest.peers:
                peers.append(side)
        schedule = list(_schedule(contest, peers))
        for number, (side, warm_up) in enumerate(schedule):
            progress.step(number, len(schedule), side.name)
            sample = await measure(side, contest.warm_up_s if warm_up else contest.seconds)
            measured.add(side.name, sample, warm_up=warm_up)
        progress.step(len(schedule), len(schedule), "effects")
        if contest.effects is not None:
            measured.effects = list(await contest.effects(measured.totals))
    differ = [effect for effect in measured.effects if effect.expected != effect.found]
    if differ:
        told = "; ".join(f"{e.what}: {e.expected:,.0f} expected, {e.found:,.0f} found" for e in differ)
        raise EffectsDiffer(f"the effects do not match: {told}")
    return measured


def _schedule(contest: Contest, peers: Sequence[Side]) -> Iterator[tuple[Side, bool]]:
    """Which side runs when, and whether to warm up: each once, then A B B A and the peers, block by block."""
    sides = [contest.ours, *contest.references]
    yield from ((side, True) for side in [*sides, *peers])
    for _ in range(contest.blocks):
        yield from ((side, False) for side in [*sides, *reversed(sides), *peers])


async def run_benchmark(benchmark: Benchmark, setting: Setting) -> list[Measured]:
    """Measure all contests of one benchmark, one after another. Raises what `run_contest` raises."""
    async with benchmark(setting) as contests:
        return [await run_contest(contest, setting.progress) for contest in contests]


class Silent:
    """Progress that nobody watches."""

    def say(self, text: str) -> None:
        """Say nothing."""

    def step(self, done: int, of: int, what: str) -> None:
        """Show nothing."""
