"""Owns what a person sees of an import: a bar on a terminal, a line now and then elsewhere, the audit."""

import contextlib
import time
from typing import IO, Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from app.dev.importing.audit import Audit, dollars

LINE_INTERVAL_S: Final = 5.0
FINDINGS_MAX: Final = 20


class Show(Protocol):
    """Shows how far it is."""

    def say(self, text: str) -> None:
        """Something worth a line."""
        ...

    def count(self, placed: int, settled: int) -> None:
        """So many orders are placed and settled."""
        ...

    def close(self) -> None:
        """No more is to be shown."""
        ...


class Lines:
    """Plain lines, for pipes and logs."""

    def __init__(self, out: IO[str], total: int) -> None:
        """Write to `out`."""
        self._out = out
        self._total = total
        self._next = time.monotonic() + LINE_INTERVAL_S

    def say(self, text: str) -> None:
        """Write a line."""
        with contextlib.suppress(OSError):
            print(text, file=self._out, flush=True)

    def count(self, placed: int, settled: int) -> None:
        """Write a line now and then."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_INTERVAL_S
            self.say(f"{placed} of {self._total} placed, {settled} settled")

    def close(self) -> None:
        """Nothing to tidy up."""


class Bars:
    """Two bars on a terminal."""

    def __init__(self, out: IO[str], total: int) -> None:
        """Draw on `out`."""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=Console(file=out),
            refresh_per_second=4,
        )
        self._placed = self._progress.add_task("placed ", total=total)
        self._settled = self._progress.add_task("settled", total=total)
        self._progress.start()

    def say(self, text: str) -> None:
        """Write a line above the bars."""
        self._progress.console.print(text, highlight=False)

    def count(self, placed: int, settled: int) -> None:
        """Move the bars."""
        self._progress.update(self._placed, completed=placed)
        self._progress.update(self._settled, completed=settled)

    def close(self) -> None:
        """Leave the bars as they are."""
        self._progress.stop()


def shown_on(out: IO[str], total: int) -> Show:
    """Bars where a person looks, lines elsewhere."""
    return Bars(out, total) if out.isatty() else Lines(out, total)


def table(audit: Audit, seconds: float, out: IO[str]) -> None:
    """The audit, for people."""
    money, items = audit.money, audit.items
    rows = Table(show_header=False, box=None, pad_edge=False)
    rows.add_row("purchases", f"{audit.purchases:,}")
    rows.add_row("accepted", f"{audit.accepted:,}")
    for status in ("completed", "rejected", "cancelled"):
        rows.add_row(f"  {status}", f"{audit.statuses.get(status, 0):,}")
    rows.add_row("money in the file", dollars(money.file))
    rows.add_row("  captured", dollars(money.captured))
    rows.add_row("  at the provider", "not asked" if money.provider is None else dollars(money.provider))
    rows.add_row("pieces in the file", f"{items.file:,}")
    rows.add_row("  in completed orders", f"{items.completed:,}")
    rows.add_row("  gone from the shelves", f"{items.left_the_shelves:,} of {audit.skus:,} SKUs")
    rows.add_row(
        "took",
        f"{seconds:.1f} s, {len(audit.statuses) and sum(audit.statuses.values()) / seconds:.1f} orders/s",
    )
    console = Console(file=out, highlight=False, soft_wrap=True)
    console.print(rows)
    for finding in audit.findings[:FINDINGS_MAX]:
        console.print(f"! {finding}", markup=False)
    if len(audit.findings) > FINDINGS_MAX:
        console.print(f"! … and {len(audit.findings) - FINDINGS_MAX:,} more")
    console.print(
        "It adds up." if not audit.findings else f"It does not add up: {len(audit.findings):,} findings."
    )
