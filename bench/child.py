"""Owns a side that runs in a process of its own, on a processor of its own.

The parent has a `ChildSide("hot path", "bench.redis_get:hotpath", {"url": …}, cpu=CLIENT_CPU)`. The factory
is an async context manager, given the options as keyword arguments, that yields
`async run(seconds) -> Sample | int` (a number means: so many operations, within the time the call took).
The child starts before anything is measured, keeps its connections between runs, sleeps on a pipe meanwhile,
and runs on uvloop. Its own processor time is in the sample as `client`, unless the sample names some itself.

Guarantees: an error in the child is the parent's BenchmarkFailed, with the path of the child's log. If the
parent dies, the child reads the end of its input and ends; if the child dies, the parent's run fails.
"""

import argparse
import asyncio
import contextlib
import importlib
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from bench.harness import Side, Unavailable
from bench.samples import BenchmarkFailed, Sample

START_TIMEOUT_S = 60.0
GRACE_S = 60.0
END_TIMEOUT_S = 10.0

Run = Callable[[float], Awaitable[Sample | int]]
Factory = Callable[..., AbstractAsyncContextManager[Run]]


class _Answer(msgspec.Struct):
    """What the child says: ready, not to be had here, broken, or what it did."""

    kind: str
    text: str = ""
    operations: float = 0
    wall_s: float = 0
    cpu_s: dict[str, float] = {}
    values: dict[str, float] = {}


class ChildSide(Side):
    """A side whose work is done by `factory` ("module:function") in a process pinned to `cpu`."""

    def __init__(
        self,
        name: str,
        factory: str,
        options: Mapping[str, Any],
        *,
        log: Path,
        cpu: int | None = None,
        servers: Mapping[str, int] | None = None,
    ) -> None:
        self.name = name
        self.processes = dict(servers or {})
        self._argv = [sys.executable, "-m", "bench.child", factory, msgspec.json.encode(options).decode()]
        if cpu is not None:
            self._argv += ["--cpu", str(cpu)]
        self._log = log
        self._process: asyncio.subprocess.Process | None = None

    async def open(self) -> None:
        """Start the process and wait until its factory is entered. Raises Unavailable, BenchmarkFailed."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log
            )
        answer = await self._answer(START_TIMEOUT_S)
        if answer.kind == "unavailable":
            raise Unavailable(answer.text)

    async def close(self) -> None:
        """End the process."""
        process = self._process
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), END_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        self._process = None

    async def run(self, seconds: float) -> Sample:
        """Have the child do it. Raises BenchmarkFailed when it fails or says nothing."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(f"{seconds}\n".encode())
        answer = await self._answer(seconds + GRACE_S)
        return Sample(answer.operations, answer.wall_s, answer.cpu_s, answer.values)

    async def _answer(self, timeout: float) -> _Answer:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            line = await asyncio.wait_for(self._process.stdout.readline(), timeout)
        except TimeoutError:
            raise BenchmarkFailed(f"{self.name} said nothing for {timeout:g} s; see {self._log}") from None
        if not line:
            raise BenchmarkFailed(f"{self.name} ended early; see {self._log}")
        answer = msgspec.json.decode(line, type=_Answer)
        if answer.kind == "failed":
            raise BenchmarkFailed(f"{self.name} failed: {answer.text}; see {self._log}")
        return answer


async def _serve(make: Factory, options: dict[str, Any], answers: int) -> None:
    """Enter the factory, then one run for each line that comes in."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with make(**options) as run:
        _say(answers, _Answer("ready"))
        while line := await lines.readline():
            cpu, started = time.process_time(), time.perf_counter()
            done = await run(float(line))
            wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
            sample = done if isinstance(done, Sample) else Sample(done, wall_s)
            used = dict(sample.cpu_s) or {"client": cpu_s}
            _say(
                answers,
                _Answer("done", "", sample.operations, sample.wall_s, used, dict(sample.values)),
            )


def _say(answers: int, answer: _Answer) -> None:
    os.write(answers, msgspec.json.encode(answer) + b"\n")


def main() -> int:
    """Be the child."""
    parser = argparse.ArgumentParser(prog="bench.child")
    parser.add_argument("factory")
    parser.add_argument("options")
    parser.add_argument("--cpu", type=int)
    arguments = parser.parse_args()
    if arguments.cpu is not None:
        os.sched_setaffinity(0, {arguments.cpu})
    # What a library prints goes to the log; the answers have a descriptor of their own.
    answers = os.dup(1)
    os.dup2(2, 1)
    try:
        module, _, name = arguments.factory.partition(":")
        make: Factory = getattr(importlib.import_module(module), name)
        uvloop.run(_serve(make, msgspec.json.decode(arguments.options), answers))
    except (Unavailable, ModuleNotFoundError) as reason:
        _say(answers, _Answer("unavailable", str(reason)))
    except Exception as error:
        with contextlib.suppress(OSError):
            _say(answers, _Answer("failed", f"{type(error).__name__}: {error}"))
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
