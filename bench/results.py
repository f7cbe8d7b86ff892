"""Owns the document that `make bench JSON=file` writes; its first fields are the public contract's.

Guarantees: the file appears whole or not at all. Fields may be added, none is renamed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from bench.harness import Measured, Outcome, Side
from bench.machine import Machine
from bench.registry import MODULES
from bench.samples import Meaningless, Sample, Spread


class Ratio(msgspec.Struct):
    """Ours to the reference: the middle and the ends of the ratios of all pairs."""

    median: float
    min: float
    max: float


class SideResult(msgspec.Struct):
    """One side of a figure: its role, its value in the figure's unit, and processor time an operation."""

    name: str
    role: str
    value: Ratio
    operations: float
    cpu_us_per_operation: dict[str, float]


class EffectResult(msgspec.Struct):
    """What was counted afterwards."""

    what: str
    expected: float
    found: float


class Result(msgspec.Struct):
    """One figure. `ours` and `reference` are medians in `unit`; `pairs` are the ratios in their order.

    A figure for information has neither a `goal` nor `met`.
    """

    benchmark: str
    figure: str
    ours: float
    reference: float
    unit: str
    ratio: Ratio
    goal: float | None
    better: str
    met: bool | None
    pairs: list[float]
    sides: list[SideResult]
    effects: list[EffectResult]
    missing_peers: dict[str, str]


class Failure(msgspec.Struct):
    """A benchmark that did not run to its end, and why."""

    benchmark: str
    reason: str


class Document(msgspec.Struct):
    """Everything of one run. `measured_at` is RFC 3339 in UTC."""

    machine: Machine
    results: list[Result]
    failures: list[Failure]
    measured_at: str


def results_of(benchmark: str, measured: Iterable[Measured]) -> list[Result]:
    """The figures of one benchmark."""
    return [_result(benchmark, outcome) for contest in measured for outcome in contest.outcomes()]


def read(paths: Iterable[Path]) -> Document:
    """Documents of earlier runs as one; of a benchmark that is in several, the last counts.

    Raises OSError, msgspec.ValidationError. The machine is the last one's.
    """
    found = [msgspec.json.decode(path.read_bytes(), type=Document) for path in paths]
    by_name: dict[str, list[Result]] = {}
    for document in found:
        by_name |= {
            name: [result for result in document.results if result.benchmark == name]
            for name in {result.benchmark for result in document.results}
        }
    last = max(found, key=lambda document: document.measured_at)
    for document in found:
        last.machine.servers = document.machine.servers | last.machine.servers
    last.results = [result for name in MODULES for result in by_name.get(name, [])]
    last.failures = []
    return last


def write(document: Document, path: Path) -> None:
    """Write it as JSON. Raises OSError."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    unfinished.replace(path)


def _result(benchmark: str, outcome: Outcome) -> Result:
    measured, figure = outcome.contest, outcome.figure
    return Result(
        benchmark=benchmark,
        figure=figure.name,
        ours=outcome.ours.median,
        reference=outcome.reference.median,
        unit=figure.unit,
        ratio=_ratio(outcome.ratio),
        goal=figure.goal,
        better=figure.better,
        met=outcome.is_met,
        pairs=list(outcome.ratios),
        sides=[
            _side(outcome, role, side)
            for role, side in _roles(outcome)
            if side.name in measured.samples and _reads(outcome, side)
        ],
        effects=[EffectResult(effect.what, effect.expected, effect.found) for effect in measured.effects],
        missing_peers=measured.missing_peers,
    )


def _roles(outcome: Outcome) -> list[tuple[str, Side]]:
    contest = outcome.contest.contest
    references = [
        ("reference" if side.name == outcome.reference_name else "other reference", side)
        for side in contest.references
    ]
    return [("ours", contest.ours), *references, *(("peer", side) for side in contest.peers)]


def _reads(outcome: Outcome, side: Side) -> bool:
    """Whether the figure can be read of this side: a peer, or another figure's reference, may lack it."""
    try:
        outcome.figure.of(outcome.contest.samples[side.name][0])
    except Meaningless:
        return False
    return True


def _side(outcome: Outcome, role: str, side: Side) -> SideResult:
    samples = outcome.contest.samples[side.name]
    return SideResult(
        name=side.name,
        role=role,
        value=_ratio(Spread.of(map(outcome.figure.of, samples))),
        operations=sum(sample.operations for sample in samples),
        cpu_us_per_operation=cpu_us(samples),
    )


def cpu_us(samples: Iterable[Sample]) -> dict[str, float]:
    """Microseconds of processor time an operation, by process, over all samples."""
    kept = list(samples)
    names = {name: None for sample in kept for name in sample.cpu_s}
    operations = sum(sample.operations for sample in kept) or 1.0
    return {name: 1e6 * sum(s.cpu_s.get(name, 0.0) for s in kept) / operations for name in names}


def _ratio(spread: Spread) -> Ratio:
    return Ratio(spread.median, spread.min, spread.max)
