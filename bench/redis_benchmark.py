"""Owns the reference `redis-benchmark`: a load that does nothing but send commands and count replies.

It is the program itself (`redis-benchmark` or `valkey-benchmark`) where PATH has one; no package index
carries it, so elsewhere it is `bench.raw_load`, which does the same on raw sockets: as many connections, as
many commands in flight on each, one write and few reads a batch. The name of the side says which it was.

Guarantees: a rate is the program's own (its start-up does not count); its command count is exact, so that
it can be held against the server's.
"""

import asyncio
import csv
import io
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from app.hotpath.address import Address
from bench.child import ChildSide
from bench.harness import Side
from bench.processor import CLIENT_CPU, pinned
from bench.samples import BenchmarkFailed, Sample

CONNECTIONS = 50
"""The program's own default."""
KEY = "__rand_int__"
"""In a command: a number of twelve digits below the number of keys, another one each time."""
_FIRST_RUN = 16_000


def program() -> str | None:
    """The program on PATH."""
    return shutil.which("redis-benchmark") or shutil.which("valkey-benchmark")


def redis_benchmark(
    command: Sequence[str],
    reply_bytes: int,
    *,
    url: str,
    keys: int,
    pipeline: int,
    log: Path,
    servers: Mapping[str, int],
) -> Side:
    """The reference for one command: the program, or what stands in for it.

    `reply_bytes` is the length of each reply on the wire; the stand-in counts replies by it.
    """
    found = program()
    if found is not None:
        return RedisBenchmark(found, command, url=url, keys=keys, pipeline=pipeline, servers=servers)
    options = {
        "url": url,
        "command": list(command),
        "reply_bytes": reply_bytes,
        "keys": keys,
        "pipeline": pipeline,
        "connections": CONNECTIONS,
    }
    name = f"raw sockets -P {pipeline} {command[0]}"
    return ChildSide(name, "bench.raw_load:load", options, log=log, cpu=CLIENT_CPU, servers=servers)


class RedisBenchmark(Side):
    """The program, once for each run."""

    def __init__(
        self,
        path: str,
        command: Sequence[str],
        *,
        url: str,
        keys: int,
        pipeline: int,
        servers: Mapping[str, int],
    ) -> None:
        address = Address.parse(url)
        self.name = f"{Path(path).name} -P {pipeline} {command[0]}"
        self.processes = servers
        self._pipeline = pipeline
        self._operations = _FIRST_RUN
        self._argv = [path, "-h", str(address.host), "-p", str(address.port), "-c", str(CONNECTIONS)]
        self._argv += ["-P", str(pipeline), "-r", str(keys), "--csv"]
        self._command = list(command)

    async def run(self, seconds: float) -> Sample:
        """Run it for a number of commands that should take so long."""
        operations = self._operations
        started = time.perf_counter()
        output, cpu_s = await asyncio.to_thread(self._execute, operations)
        took = time.perf_counter() - started
        rate = _rate(output)
        wanted = max(rate * min(seconds, 2 * took + seconds) / self._pipeline, CONNECTIONS)
        self._operations = int(wanted) * self._pipeline
        return Sample(operations, operations / rate, {"client": cpu_s})

    def _execute(self, operations: int) -> tuple[str, float]:
        argv = [*self._argv, "-n", str(operations), *self._command]
        with pinned(CLIENT_CPU):
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        assert process.stdout is not None
        with process.stdout:
            output = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0 or "Error" in output:
            raise BenchmarkFailed(f"{self.name} failed ({process.returncode}): {output[-500:]}")
        return output, used.ru_utime + used.ru_stime


def _rate(output: str) -> float:
    """Requests a second as the program says them in its table."""
    rows = [row for row in csv.DictReader(io.StringIO(output)) if row.get("rps")]
    if not rows:
        raise BenchmarkFailed(f"no rate in what it printed: {output[-500:]}")
    return float(rows[-1]["rps"])
