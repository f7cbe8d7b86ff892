"""Owns what a person sees on the terminal: progress while it runs, then tables.

Guarantees: progress goes to standard error, tables to standard output; without a terminal each is plain
lines, and a step that only repeats what is known is not printed.
"""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.machine import Machine
from bench.results import Document, Ratio, Result, SideResult

_WIDTH_PLAIN = 140
_MET = {
    True: Text("reached", "green"),
    False: Text("MISSED", "bold yellow"),
    None: Text("for information"),
}


class Terminal:
    """Progress on standard error."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._status = self.console.status("")
        self._title = ""

    def begin(self, title: str) -> None:
        """A benchmark starts."""
        self._title = title
        self.say(f"{title} …")
        if self.console.is_terminal:
            self._status.start()

    def end(self) -> None:
        """It is over."""
        self._status.stop()

    def say(self, text: str) -> None:
        """A line."""
        self.console.print(Text(text), soft_wrap=True)

    def step(self, done: int, of: int, what: str) -> None:
        """How far it is, in the line that is overwritten."""
        self._status.update(Text(f"{self._title}: {done}/{of} {what}"))


def print_document(document: Document) -> None:
    """Tables of all figures and of what stood beside them."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH_PLAIN)
    if document.results:
        console.print(_figures(document.results))
        console.print()
        console.print(_sides(document.results))
        console.print()
    for line in _effects(document.results):
        console.print(Text(line))
    console.print(Text(describe(document.machine)))
    for failure in document.failures:
        console.print(Text(f"FAILED {failure.benchmark}: {failure.reason}", style="bold red"))


def describe(machine: Machine) -> str:
    """The machine in a line."""
    servers = "".join(f", {name} {version}" for name, version in machine.servers.items())
    return (
        f"{machine.cores} cores of {machine.cpu}, {machine.memory_bytes / 2**30:.0f} GiB, {machine.python}, "
        f"{machine.kernel}{servers}; load average before {machine.load_before:.1f}"
    )


def number(value: float) -> str:
    """Three digits that matter, thousands apart."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _spread(ratio: Ratio) -> str:
    return f"{number(ratio.min)} … {number(ratio.max)}"


def _figures(results: Iterable[Result]) -> Table:
    table = Table("figure", box=None, pad_edge=False)
    for name in ("ours", "reference", "unit", "ratio", "spread", "goal"):
        table.add_column(name, justify="left" if name == "unit" else "right")
    table.add_column("")
    for result in results:
        sign = "≥" if result.better == "higher" else "≤"
        table.add_row(
            f"{result.benchmark} {result.figure}",
            number(result.ours),
            number(result.reference),
            result.unit,
            number(result.ratio.median),
            _spread(result.ratio),
            "" if result.goal is None else f"{sign} {result.goal:g}",
            _MET[result.met],
        )
    return table


def _sides(results: Iterable[Result]) -> Table:
    table = Table("side", "", box=None, pad_edge=False)
    for name in ("median", "spread", "unit", "µs of processor time an operation"):
        table.add_column(name, justify="left" if name[0] in "uµ" else "right")
    seen: set[tuple[str, str, str]] = set()
    for result in results:
        for side in result.sides:
            if (result.benchmark, side.name, result.unit) not in seen:
                seen.add((result.benchmark, side.name, result.unit))
                table.add_row(*_side_row(result, side))
    return table


def _side_row(result: Result, side: SideResult) -> tuple[str, ...]:
    cpu = ", ".join(f"{name} {number(us)}" for name, us in side.cpu_us_per_operation.items())
    role = side.role.removeprefix("other ")
    median, spread = number(side.value.median), _spread(side.value)
    return (f"{result.benchmark}: {side.name}", role, median, spread, result.unit, cpu)


def _effects(results: Iterable[Result]) -> list[str]:
    lines = {
        f"counted afterwards, {result.benchmark}: {effect.what}: {effect.found:,.0f}, as it should be": None
        for result in results
        for effect in result.effects
    }
    return list(lines)
