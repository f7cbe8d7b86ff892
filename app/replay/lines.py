"""What `holdfast replay` says: how far it is, the rows that differ, what they come to, and how it ended."""

import re
import sys
from collections.abc import Sequence
from time import monotonic
from typing import Any, Final, Protocol, TextIO

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app.infra.postgres import replays
from app.infra.postgres.replays import Change, Replay
from app.replay.messages import document

LINE_INTERVAL_S: Final = 2.0
ROWS_MAX: Final = 20
"""So many rows are said on a terminal; `--json` and HTTP have them all."""
_DIGITS: Final = 12
_UTC: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?)\+00:00\Z")
"""A time as PostgreSQL writes it in JSON."""


class Following(Protocol):
    """Shows how far a replay is."""

    def show(self, replay: Replay) -> None:
        """It is here now."""
        ...

    def close(self) -> None:
        """No more is to be shown."""
        ...


class Lines:
    """A line now and then, for pipes and logs."""

    def __init__(self, out: TextIO) -> None:
        """Write to `out`."""
        self._out = out
        self._state = ""
        self._next = 0.0

    def show(self, replay: Replay) -> None:
        """Write a line, if there is something new to say."""
        if replay.state == self._state and monotonic() < self._next:
            return
        self._state, self._next = replay.state, monotonic() + LINE_INTERVAL_S
        say(f"{replay.id}  {how_far(replay)}", self._out)

    def close(self) -> None:
        """Nothing to tidy up."""


class Bar:
    """A bar on a terminal."""

    def __init__(self, out: TextIO) -> None:
        """Draw on `out`."""
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=Console(file=out),
            refresh_per_second=4,
            transient=True,
        )
        self._task = self._progress.add_task("waiting", total=None, rate="")
        self._progress.start()

    def show(self, replay: Replay) -> None:
        """Move the bar: over events while they are read, over changes while they are applied."""
        done, total = replay.done, replay.total
        if replay.state == replays.CHECKING:
            done, total = replay.checked, replay.changes
        elif replay.state in {replays.APPLYING, replays.APPLIED}:
            done, total = replay.applied, replay.changes
        rate = document(replay).progress.rate_per_s
        says = f"{rate:,.0f}/s" if rate and replay.state == replays.READING else ""
        self._progress.update(self._task, description=replay.state, completed=done, total=total, rate=says)

    def close(self) -> None:
        """Take the bar away."""
        self._progress.stop()


def following(out: TextIO) -> Following:
    """A bar where a person looks, lines elsewhere."""
    return Bar(out) if out.isatty() else Lines(out)


def how_far(replay: Replay) -> str:
    """How far a replay is, in a line."""
    progress = document(replay).progress
    match replay.state:
        case replays.WAITING:
            return "waiting for a worker"
        case replays.READING:
            rate = f", {progress.rate_per_s:,.0f}/s" if progress.rate_per_s else ""
            left = f", about {progress.remaining_s:,.0f} s left" if progress.remaining_s else ""
            return f"reading: {progress.done:,} of {progress.total:,} events{rate}{left}"
        case replays.CHECKING | replays.APPLYING:
            done = replay.checked if replay.state == replays.CHECKING else replay.applied
            return f"{replay.state}: {done:,} of {replay.changes:,} changes"
        case _:
            return replay.state


def tell(replay: Replay, changes: Sequence[Change]) -> None:
    """Say what came of a replay: its rows, some of them, their sum, and what is to be done now."""
    for change in changes[:ROWS_MAX]:
        say(row(change))
    if replay.changes > ROWS_MAX:
        say(f"… and {replay.changes - ROWS_MAX:,} more; --json shows all of them")
    for of, columns in replay.summary.get("sums", {}).items():
        say(f"in sum  {of}  " + "  ".join(f"{name} {value:+,}" for name, value in columns.items()))
    for code, number in replay.summary.get("left_out", {}).items():
        say(f"left out  {code}  {number:,}")
    for words in replay.summary.get("left_out_first", ()):
        say(f"          {words}")
    if "live_hash" in replay.summary:
        live, built = replay.summary["live_hash"], replay.summary["rebuilt_hash"]
        rows = f"{_rows(replay.summary['rows'])} live, {replay.summary['rebuilt_rows']:,} rebuilt"
        same = f"the same: {live[:_DIGITS]}" if live == built else f"{live[:_DIGITS]} live, {built[:_DIGITS]}"
        say(f"{rows}; hash {same}")
    say(f"{replay.done:,} events read, {_rows(replay.changes)} differ{'s' if replay.changes == 1 else ''}")
    say(_end(replay), sys.stderr if replay.state in {replays.REFUSED, replays.FAILED} else None)


def row(change: Change) -> str:
    """A change in a line."""
    which = " ".join(_name(value) for value in change.key.values() if value != "")
    if change.before is None or change.after is None:
        what, row_ = ("missing", change.after) if change.before is None else ("too much", change.before)
        return f"{which}  {what}: " + "  ".join(f"{n} {_text(v)}" for n, v in (row_ or {}).items() if v)
    told = []
    for name, difference in change.difference.items():
        by = f" ({difference:+,})" if isinstance(difference, int) else ""
        told.append(f"{name} {_text(change.before.get(name))} → {_text(change.after.get(name))}{by}")
    return f"{which}  " + "  ".join(told)


def say(line: str, to: TextIO | None = None) -> None:
    """Write a line."""
    print(line, file=to or sys.stdout, flush=True)


def _end(replay: Replay) -> str:
    match replay.state:
        case replays.SHOWN if replay.changes:
            return f"Nothing was changed. To apply exactly this: holdfast replay --plan {replay.id}"
        case replays.SHOWN:
            return "Nothing differs."
        case replays.APPLIED:
            return f"Applied: {_rows(replay.applied)} changed." if replay.changes else "Nothing differs."
        case replays.REFUSED | replays.FAILED:
            return f"holdfast replay: {replay.state}: {replay.error}"
        case _:
            return f"{replay.id} is {replay.state}."


def _rows(number: int) -> str:
    return f"{number:,} row" + ("" if number == 1 else "s")


def _text(value: Any) -> str:  # noqa: ANN401 - whatever a row holds
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return _name(value)


def _name(value: Any) -> str:  # noqa: ANN401 - whatever a row is found by
    """As it is, but times with a Z."""
    if isinstance(value, str):
        return _UTC.sub(r"\1Z", value)
    return msgspec.json.encode(value).decode()
