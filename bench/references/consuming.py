"""What the benchmark `stream` is held against: a raw socket that reads, and asyncpg that writes.

The one reads and acknowledges as many entries, the other inserts as many rows in batches. Neither decodes an
event, keeps an order or survives anything. Batch sizes are found out by trying before anything is measured.
"""

import itertools
import secrets
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import asyncpg
import redis.asyncio
from hiredis import Reader, pack_command

from app.contracts.streams import stream
from app.domain.ids import order_id
from app.hotpath.address import Address
from bench.child import Run
from bench.processor import Processes
from bench.samples import BenchmarkFailed, Sample
from bench.stream_events import SHARDS, Histories, empty, fill, make_groups

ENVIRONMENT = "raw"
GROUP = "raw"
CONSUMER = "one"
COUNTS = (100, 400, 1_000)
BATCHES = (200, 1_000, 4_000)
TRY_S = 0.2
ROWS = "bench_reference_rows"
INSERT = f"""INSERT INTO {ROWS} (id, subject, sequence, type, time)
    SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::timestamptz[])"""
RECEIVE_BYTES = 1 << 20
_MORE = object()


class _RawSocket:
    """XREADGROUP and XACK by hand: what was read is acknowledged in the write that reads the next."""

    def __init__(self, url: str, count: int) -> None:
        address = Address.parse(url)
        self._socket = socket.create_connection((address.host, address.port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = Reader(notEnoughData=_MORE)
        self.count = count

    def close(self) -> None:
        self._socket.close()

    def consume(self, wanted: int) -> int:
        """Read and acknowledge until so many are done."""
        keys = [stream(ENVIRONMENT, shard) for shard in range(SHARDS)]
        group = ("GROUP", GROUP, CONSUMER, "COUNT", self.count, "STREAMS")
        # Its stub knows tuples of one item only.
        read = pack_command(("XREADGROUP", *group, *keys, *[">"] * SHARDS))  # type: ignore[arg-type]
        acknowledging: list[bytes] = []
        done = 0
        while True:
            more = done < wanted
            self._socket.sendall(b"".join([*acknowledging, read] if more else acknowledging))
            for _ in acknowledging:
                self._reply()
            if not more:
                return done
            found = self._reply()
            if not found:
                raise BenchmarkFailed(f"nothing left after {done} of {wanted} entries")
            acknowledging = [
                pack_command(("XACK", key, GROUP, *[entry[0] for entry in entries])) for key, entries in found
            ]
            done += sum([len(entries) for _, entries in found])

    def _reply(self) -> Any:  # noqa: ANN401 - whatever the server says
        while (reply := self._reader.gets()) is _MORE:
            self._reader.feed(self._socket.recv(RECEIVE_BYTES))
        if isinstance(reply, Exception):
            raise reply
        return reply


@asynccontextmanager
async def raw_socket(url: str, servers: dict[str, int]) -> AsyncIterator[Run]:
    """One blocking socket, hiredis, nothing else."""
    histories = Histories()
    processes = Processes(servers)
    rate = 100_000.0
    async with redis.asyncio.from_url(url, protocol=2) as admin:
        await make_groups(admin, ENVIRONMENT, GROUP)
        raw = _RawSocket(url, COUNTS[0])

        async def run(seconds: float) -> Sample:
            nonlocal rate
            orders = 1 + int(rate * seconds / histories.events_of_each)
            wanted = await fill(admin, ENVIRONMENT, histories.entries(orders))
            before, cpu, began = processes.cpu_s(), time.process_time(), time.perf_counter()
            done = raw.consume(wanted)
            wall_s, used = time.perf_counter() - began, time.process_time() - cpu
            after = processes.cpu_s()
            if await empty(admin, ENVIRONMENT, GROUP):
                raise BenchmarkFailed("not everything was acknowledged")
            rate = done / wall_s
            servers_used = {name: after[name] - before[name] for name in after}
            return Sample(done, wall_s, {"client": used, **servers_used})

        found: dict[int, float] = {}
        for raw.count in COUNTS:
            await run(TRY_S / 3)
            sample = await run(TRY_S)
            found[raw.count] = sample.operations / sample.wall_s
        print({f"COUNT {count}": round(rate) for count, rate in found.items()})
        raw.count = max(found, key=lambda count: found[count])
        try:
            yield run
        finally:
            raw.close()


def _columns(size: int) -> list[Sequence[Any]]:
    """Rows as the effect of the benchmark writes them, of orders that nobody has."""
    now = datetime.now(UTC)
    unix_ms = int(now.timestamp() * 1000)
    events = Histories().events_of_each
    names = [order_id(unix_ms, secrets.token_bytes(10)) for _ in range(1 + size // events)]
    rows = [
        (f"{name}:{number}", name, number, "inventory.reserved.v1", now)
        for name, number in itertools.islice(itertools.product(names, range(1, events + 1)), size)
    ]
    return list(zip(*rows, strict=True))


@asynccontextmanager
async def batched_insert(dsn: str) -> AsyncIterator[Run]:
    """Rows by UNNEST, one batch a commit."""
    connection = await asyncpg.connect(dsn, server_settings={"jit": "off"})
    try:
        await connection.execute(f"CREATE TABLE {ROWS} (LIKE bench_rows INCLUDING ALL)")

        async def insert(seconds: float, size: int, rate: float) -> Sample:
            batches = [_columns(size) for _ in range(1 + int(seconds * rate / size))]
            done = 0
            cpu, began = time.process_time(), time.perf_counter()
            for batch in batches:
                await connection.execute(INSERT, *batch)
                done += size
            return Sample(done, time.perf_counter() - began, {"client": time.process_time() - cpu})

        found: dict[int, float] = {}
        for size in BATCHES:
            await insert(TRY_S / 3, size, 50_000)
            sample = await insert(TRY_S, size, 50_000)
            found[size] = sample.operations / sample.wall_s
        print({f"batches of {size}": round(rate) for size, rate in found.items()})
        best = max(found, key=lambda size: found[size])
        rate = found[best]
        await connection.execute(f"TRUNCATE {ROWS}")

        async def run(seconds: float) -> Sample:
            nonlocal rate
            sample = await insert(seconds, best, rate)
            rate = sample.operations / sample.wall_s
            return sample

        yield run
    finally:
        await connection.close()
