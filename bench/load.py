"""The load generator: sends prepared HTTP/1.1 requests to 127.0.0.1 and says what came of every one.

Two ways. Closed: as many connections as asked, each sends its next request when it has the answer to the
last; for rates. Open: requests are due at a fixed rate whether or not answers come, and every latency counts
from the moment a request was due, so a server that stalls is charged for everybody who had to wait; for
percentiles.

What is not answered within the bound, or lost with its connection, is counted. A run ends by itself: at the
latest `seconds + bound_s` after it began. If the process dies, its caller sees that.

    result = await load.run_apart(load.Plan(port=8080, requests=[load.get("/livez")], seconds=2))
    result.rate, result.latency_ms(0.99), result.statuses
"""

import asyncio
import gc
import math
import sys
import time
from array import array
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop

ROOT: Final = Path(__file__).parents[1]
_START_S: Final = 15.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to send. `rate` is requests a second for the open way; None is the closed way.

    `requests` are whole requests, sent in turn; `repeat` begins again at the first when they run out, else
    the run ends. `keep` names requests (by their number, from 0) whose answers are wanted; the first answer
    of every status is kept anyway.
    """

    port: int
    requests: list[bytes]
    connections: int = 64
    seconds: float = 1.0
    rate: float | None = None
    repeat: bool = True
    bound_s: float = 5.0
    keep: frozenset[int] = frozenset()


class Kept(msgspec.Struct, frozen=True):
    """An answer as it came: status, the lines of the head, the body."""

    status: int
    head: bytes
    body: bytes

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers, names in lower case."""
        pairs = (line.partition(b":") for line in self.head.split(b"\r\n")[1:])
        return [(name.lower(), value.strip()) for name, _, value in pairs]


class Result(msgspec.Struct, kw_only=True):
    """What came of a run.

    `answered` counts the answers within the first `seconds` seconds, of which `rate` is made; `statuses`
    counts all answers, the last of which came after `drained_s`. `unanswered` took longer than the bound (or
    were never sent because no connection was free), `lost` went with their connection. Both are in the
    latencies with the bound. `late_ms` is how late the generator itself was at worst in sending what was due
    on a free connection.
    """

    seconds: float
    drained_s: float
    answered: int
    statuses: dict[int, int]
    unanswered: int
    lost: int
    latencies: bytes
    late_ms: float
    cpu_s: float
    kept: dict[int, Kept]
    firsts: dict[int, Kept]

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds

    @property
    def sent(self) -> int:
        """All requests, whatever became of them."""
        return sum(self.statuses.values()) + self.unanswered + self.lost

    def count(self, status: int) -> int:
        """How many answers had this status."""
        return self.statuses.get(status, 0)

    def sorted_ms(self) -> list[float]:
        """Every latency in milliseconds, ascending."""
        found = array("f")
        found.frombytes(self.latencies)
        return sorted(found)

    def latency_ms(self, *quantiles: float) -> tuple[float, ...]:
        """Latencies by quantile (0.99; 1 is the worst), milliseconds; nearest rank."""
        ordered = self.sorted_ms()
        if not ordered:
            return tuple(math.nan for _ in quantiles)
        return tuple(ordered[max(math.ceil(q * len(ordered)) - 1, 0)] for q in quantiles)

    def expect(self, *statuses: int) -> "Result":
        """This very result. Raises LoadError unless every request was answered with one of `statuses`."""
        odd = {status: n for status, n in self.statuses.items() if status not in statuses}
        if not odd and not self.unanswered and not self.lost:
            return self
        shown = "; ".join(f"{status}: {self.firsts[status].body[:300]!r}" for status in odd)
        raise LoadError(
            f"{odd} other answers, {self.unanswered} unanswered, {self.lost} lost of {self.sent}. {shown}"
        )


class LoadError(Exception):
    """The load could not be made, or what came back was not HTTP, or was not what was expected."""


def get(path: str, headers: Mapping[str, str] | None = None) -> bytes:
    """A prepared GET."""
    return _head("GET", path, headers or {}) + b"\r\n"


def post(path: str, body: bytes, headers: Mapping[str, str] | None = None) -> bytes:
    """A prepared POST of a JSON body."""
    fields = {"Content-Type": "application/json", "Content-Length": str(len(body)), **(headers or {})}
    return _head("POST", path, fields) + b"\r\n" + body


def _head(method: str, path: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "".join(f"{line}\r\n" for line in lines).encode()


async def run_apart(plan: Plan) -> Result:
    """Run a plan in a process of its own, so that neither its pauses nor its CPU are the caller's.

    Raises LoadError.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.load"),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_START_S + plan.seconds + plan.bound_s):
            out, said = await process.communicate(msgspec.msgpack.encode(plan))
    except TimeoutError:
        raise LoadError("The load generator did not end by itself.") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        raise LoadError(said.decode(errors="replace").strip().rpartition("\n")[2])
    return msgspec.msgpack.decode(out, type=Result)


async def run(plan: Plan) -> Result:
    """Run a plan in this process. Raises LoadError."""
    from bench.load_run import Run  # noqa: PLC0415 - it imports this module

    before = time.process_time()
    result = await Run(plan).result()
    result.cpu_s = time.process_time() - before
    return result


def summary(results: Iterable[Result]) -> dict[str, Any]:
    """Several runs together, for people: counts, and the percentiles over all latencies."""
    all_of = list(results)
    merged = msgspec.structs.replace(all_of[0], latencies=b"".join(one.latencies for one in all_of))
    p50, p99, p999, worst = merged.latency_ms(0.5, 0.99, 0.999, 1)
    return {
        "sent": sum(one.sent for one in all_of),
        "unanswered": sum(one.unanswered + one.lost for one in all_of),
        "p50_ms": p50,
        "p99_ms": p99,
        "p999_ms": p999,
        "max_ms": worst,
    }


def main() -> int:
    """Read a plan from standard input, run it, write its result to standard output."""
    plan = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Plan)
    gc.disable()  # a run is short, and a pause here would be charged to the server
    result = msgspec.msgpack.encode(uvloop.run(run(plan)))
    with open(sys.stdout.fileno(), "wb", closefd=False) as output:  # buffered whatever Python was told:
        output.write(result)  # an unbuffered stream may write only a part
    return 0


if __name__ == "__main__":
    sys.exit(main())
