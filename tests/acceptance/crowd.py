"""A crowd of requests at a fixed rate, sent by a process of its own, and how long each kind of answer took.

It is the open load of `bench.load`, but latencies are kept by status and count from when a request was sent:
what a server is asked to answer quickly is what has reached it. A beat beside the load says how late this
machine wakes a process that has something to do, which no server can help.
"""

import asyncio
import sys
import threading
import time
from array import array
from collections import defaultdict
from pathlib import Path

import msgspec
import uvloop

from bench.load import Kept, Plan
from bench.load_connection import Connection
from bench.load_run import Run

ROOT = Path(__file__).parents[2]
_START_S = 60.0
_BEAT_S = 0.005


class Came(msgspec.Struct):
    """What came of a crowd: answers by number of the request, and milliseconds by status."""

    kept: dict[int, Kept]
    ms: dict[int, list[float]]
    in_time: dict[int, int]
    """How many had each status while the crowd was sent; the rest came later."""
    lost: int
    seconds: float
    beats_ms: list[float]
    """How late each beat was."""

    def quantile_ms(self, status: int, q: float) -> float:
        """How long this share of the answers took at most."""
        return _quantile(self.ms[status], q)

    def late_ms(self, q: float) -> float:
        """How late this share of the beats was at most."""
        return _quantile(self.beats_ms, q)

    def numbers(self, status: int) -> set[int]:
        """The requests that were answered so."""
        return {number for number, kept in self.kept.items() if kept.status == status}


def _quantile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * q), len(ordered) - 1)]


class _Timed(Run):
    """A run that knows when each request was sent."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._sent_at: dict[int, float] = {}
        self.began = time.perf_counter()
        self.ms: defaultdict[int, array[float]] = defaultdict(lambda: array("f"))
        self.in_time: defaultdict[int, int] = defaultdict(int)

    def _send(self, connection: Connection, began: float) -> None:
        self._sent_at[id(connection)] = time.perf_counter()
        super()._send(connection, began)

    def answered(self, connection: Connection, status: int, head_end: int, answer: bytes) -> None:
        """Count it."""
        now = time.perf_counter()
        self.ms[status].append((now - self._sent_at[id(connection)]) * 1000)
        self.in_time[status] += now <= self._until
        super().answered(connection, status, head_end, answer)


async def crowd(plan: Plan) -> Came:
    """Send it, and wait for every answer."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.acceptance.crowd"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_START_S + 2 * plan.seconds + plan.bound_s):
            out, _ = await process.communicate(msgspec.msgpack.encode(plan))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    return msgspec.msgpack.decode(out, type=Came)


def _beat(late_ms: list[float], stop: threading.Event) -> None:
    """Sleep a little again and again, in a thread that does nothing else, and note how late it wakes."""
    while not stop.is_set():
        due = time.perf_counter() + _BEAT_S
        time.sleep(_BEAT_S)
        late_ms.append((time.perf_counter() - due) * 1000)


async def _run(plan: Plan) -> Came:
    run = _Timed(plan)
    beats: list[float] = []
    stop = threading.Event()
    beating = threading.Thread(target=_beat, args=(beats, stop))
    beating.start()
    try:
        result = await run.result()
    finally:
        stop.set()
        beating.join()
    times = {status: list(taken) for status, taken in run.ms.items()}
    lost = result.lost + result.unanswered
    return Came(result.kept, times, dict(run.in_time), lost, result.seconds, beats)


def main() -> None:
    """Read a plan from standard input, run it, write what came to standard output."""
    plan = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Plan)
    out = msgspec.msgpack.encode(uvloop.run(_run(plan)))
    with open(sys.stdout.fileno(), "wb", closefd=False) as output:
        output.write(out)


if __name__ == "__main__":
    main()
