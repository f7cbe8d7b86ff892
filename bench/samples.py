"""Owns what one run of one side measured, and how a figure is read from it.

Guarantees: nothing is rounded or left out here; a reading that has no meaning (nothing was done, no such
process) raises `Meaningless`, it is never a zero.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field


class BenchmarkFailed(Exception):
    """A benchmark could not run, or what it did is not what it says it did."""


class Meaningless(BenchmarkFailed):
    """A figure was asked of a sample that does not hold it."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of one side.

    `operations` were finished within `wall_s` seconds of the clock. `cpu_s` is processor time in seconds by
    name of process. `values` are further readings (`{"p50_ms": 11.2}`). `parts` are the samples of which a
    compound was made, by the name of their side.
    """

    operations: float
    wall_s: float
    cpu_s: Mapping[str, float] = field(default_factory=dict)
    values: Mapping[str, float] = field(default_factory=dict)
    parts: tuple[tuple[str, "Sample"], ...] = ()


Reading = Callable[[Sample], float]


def rate(sample: Sample) -> float:
    """Operations a second."""
    if sample.operations <= 0 or sample.wall_s <= 0:
        raise Meaningless("nothing was done within the sample")
    return sample.operations / sample.wall_s


def cpu_per_operation(*processes: str, unit_s: float = 1e-6) -> Reading:
    """Processor time an operation in units of `unit_s` seconds (µs), of these processes together."""

    def read(sample: Sample) -> float:
        if sample.operations <= 0:
            raise Meaningless("nothing was done within the sample")
        missing = [name for name in processes if name not in sample.cpu_s]
        if missing:
            raise Meaningless(f"no processor time is known of {', '.join(missing)}")
        return sum(sample.cpu_s[name] for name in processes) / sample.operations / unit_s

    return read


def value(name: str) -> Reading:
    """A further reading by its name."""

    def read(sample: Sample) -> float:
        if name not in sample.values:
            raise Meaningless(f"the sample has no {name}")
        return sample.values[name]

    return read


def in_series(parts: Iterable[tuple[str, Sample]]) -> Sample:
    """What these would do one after the other for each operation: rate 1 / Σ (1 / rate), costs added."""
    kept = tuple(parts)
    wall_s = sum(1 / rate(part) for _, part in kept)
    cpu_s: dict[str, float] = {}
    for _, part in kept:
        for name, seconds in part.cpu_s.items():
            cpu_s[name] = cpu_s.get(name, 0.0) + seconds / part.operations
    return Sample(operations=1.0, wall_s=wall_s, cpu_s=cpu_s, parts=kept)


@dataclass(frozen=True, slots=True)
class Spread:
    """The middle of some numbers and how far they lie apart."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, numbers: Iterable[float]) -> "Spread":
        """Of at least one number. Raises Meaningless for none, and for what is no number."""
        kept = sorted(numbers)
        if not kept or not all(map(math.isfinite, kept)):
            raise Meaningless(f"no spread of {kept}")
        return cls(statistics.median(kept), kept[0], kept[-1])
