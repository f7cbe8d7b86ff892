"""Whether what is read is fresh: PostgreSQL watched, readers at every gateway, and a Redis that is tormented.

`Truth` looks at PostgreSQL's orders all the time and notes when each version was first seen there, by the
clock of this process. A version is in PostgreSQL when it is seen, so a read that began `STALE_S` later and
shows an older one is stale beyond doubt, however slow the machine is.
"""

import asyncio
import contextlib
import json
import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import httpx
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from bench import load

STALE_S = 2.0
LOOK_S = 0.02
READ_TIMEOUT_S = 10.0
RECENT = 40
POPULARITY = (1.0, 0.05, 0.01, 0.002)


class Truth:
    """PostgreSQL's versions of one customer's orders, and since when each is known."""

    def __init__(self, dsn: str, customer: str) -> None:
        self._dsn = dsn
        self._customer = customer
        self.seen: dict[str, list[tuple[int, str, float]]] = defaultdict(list)
        """Order → (version, status, when it was first seen), ascending."""
        self.longest_look_s = 0.0

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Look at PostgreSQL all the time."""
        connection = await asyncpg.connect(self._dsn)
        watching = asyncio.create_task(self._watch(connection))
        try:
            yield
            assert not watching.done(), watching
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await connection.close()

    async def _watch(self, connection: asyncpg.Connection) -> None:
        query = "SELECT id, version, status FROM orders WHERE customer_id = $1"
        before = time.monotonic()
        while True:
            rows = await connection.fetch(query, self._customer)
            now = time.monotonic()
            self.longest_look_s = max(self.longest_look_s, now - before)
            before = now
            for identity, version, status in rows:
                seen = self.seen[identity]
                if not seen or seen[-1][0] < version:
                    seen.append((version, status, now))
            await asyncio.sleep(LOOK_S)

    def required(self, order_id: str, at: float) -> int:
        """The oldest version that a read begun at `at` may show."""
        known = (version for version, _, since in self.seen.get(order_id, ()) if since <= at - STALE_S)
        return max(known, default=0)

    def behind_s(self, order_id: str, version: int, at: float) -> float:
        """How long something newer had been known when a read of this version began, seconds."""
        newer = [since for v, _, since in self.seen.get(order_id, ()) if v > version]
        return max(at - newer[0], 0.0) if newer else 0.0

    def status(self, order_id: str, version: int) -> str | None:
        """The status at a version, if it was seen."""
        return next((s for v, s, _ in self.seen.get(order_id, ()) if v == version), None)


@dataclass
class Findings:
    """What the readers found. `stale` must stay empty."""

    reads: int = 0
    not_modified: int = 0
    steps_back: int = 0
    behind: list[float] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def told(self) -> str:
        """The numbers, for people."""
        return (
            f"{self.reads} reads, {self.not_modified} not modified, {len(self.behind)} behind PostgreSQL, "
            f"the worst by {max(self.behind, default=0):.2f} s; {self.steps_back} showed less than the same "
            f"gateway had shown; the slowest took {self.slowest_s:.2f} s"
        )


class Reader:
    """Reads orders at one gateway, over a connection of its own, and holds each against the truth."""

    def __init__(self, url: str, api_key: str, truth: Truth, findings: Findings, dice: random.Random) -> None:
        self._url = httpx.URL(url)
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._truth = truth
        self._findings = findings
        self._dice = dice
        self._popularity: dict[str, float] = {}
        self._tags: dict[str, str] = {}
        self._shown: dict[str, int] = {}

    async def read_on(self, until: float) -> None:
        """Read until that time (monotonic), what was placed lately.

        Some orders are read all the time; others hardly ever, so that nothing but its own age renews what is
        kept of them.
        """
        reader, writer = await asyncio.open_connection(self._url.host, self._url.port)
        try:
            while time.monotonic() < until:
                if self._truth.seen:
                    async with asyncio.timeout(READ_TIMEOUT_S):
                        await self._read(reader, writer, self._chosen())
                await asyncio.sleep(self._dice.uniform(0, 0.01))
        finally:
            writer.close()

    def _chosen(self) -> str:
        lately = list(self._truth.seen)[-RECENT:]
        for order_id in lately:
            if order_id not in self._popularity:
                self._popularity[order_id] = self._dice.choice(POPULARITY)
        return self._dice.choices(lately, [self._popularity[order_id] for order_id in lately])[0]

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, order_id: str) -> None:
        tag = self._tags.get(order_id) if self._dice.random() < 0.5 else None
        headers = self._headers | ({"If-None-Match": tag} if tag else {})
        began = time.monotonic()
        writer.write(load.get(f"/v1/orders/{order_id}", headers))
        status, fields, body = await _answer(reader)
        findings = self._findings
        findings.reads += 1
        findings.slowest_s = max(findings.slowest_s, time.monotonic() - began)
        if status not in {200, 304}:
            findings.stale.append(f"{order_id} is answered {status} {body[:200]!r}")
            return
        shown = fields["etag"]
        version = int(shown.strip('"').partition("-")[0])
        if status == 304:
            findings.not_modified += 1
            if shown != tag:
                findings.stale.append(f"{order_id}: 304 for {tag}, but it is {shown}")
        else:
            self._check(order_id, version, json.loads(body))
        self._compare(order_id, version, began)
        self._tags[order_id] = shown

    def _check(self, order_id: str, version: int, document: dict[str, Any]) -> None:
        """A document is of the order that was asked for, and says what PostgreSQL says of its version."""
        status = self._truth.status(order_id, version)
        if (document["id"], document["version"]) != (order_id, version) or document["status"] != (
            status or document["status"]
        ):
            self._findings.stale.append(f"{order_id} at {version} {status} is shown as {document}")

    def _compare(self, order_id: str, version: int, began: float) -> None:
        truth, findings = self._truth, self._findings
        if (behind_s := truth.behind_s(order_id, version, began)) > 0:
            findings.behind.append(behind_s)
        required = truth.required(order_id, began)
        if version < required:
            findings.stale.append(
                f"{self._url.port} shows {order_id} at {version}, {behind_s:.2f} s late; {required} is known"
            )
        findings.steps_back += version < self._shown.get(order_id, 0)
        self._shown[order_id] = version


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    body = await reader.readexactly(int(fields.get("content-length", 0)))
    return int(head[0].split()[1]), fields, body


class Tormentor:
    """Does to Redis what the dice say, one thing after another; mends what it broke."""

    FULL_BYTES = 1_000_000

    def __init__(self, url: str, dice: random.Random) -> None:
        self._url = url
        self._dice = dice
        self.done: Counter[str] = Counter()
        self._kinds: tuple[Callable[[], Awaitable[None]], ...] = (
            self.flush,
            self.freeze,
            self.kill,
            self.cut_all,
            self.pause,
            self.fill,
        )

    async def torment(self, until: float) -> None:
        """Go on until that time (monotonic); every kind comes before any comes again."""
        while time.monotonic() < until:
            for kind in self._dice.sample(self._kinds, len(self._kinds)):
                if time.monotonic() >= until:
                    return
                with contextlib.suppress(redis.RedisError):  # it is not back yet from the last time
                    await kind()
                    self.done[kind.__name__] += 1
                await asyncio.sleep(self._dice.uniform(0.05, 0.8))

    async def flush(self) -> None:
        """It forgets everything."""
        await self._tell("FLUSHALL")

    async def freeze(self) -> None:
        """It stands still for a while."""
        pid = await self._pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(self._dice.uniform(0.05, 2.5))
        finally:
            os.kill(pid, signal.SIGCONT)

    async def kill(self) -> None:
        """It dies, and the supervisor brings it back with what it had on disk."""
        os.kill(await self._pid(), signal.SIGKILL)

    async def cut_all(self) -> None:
        """It hangs up on everybody."""
        for kind in ("normal", "pubsub"):
            await self._tell("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")

    async def pause(self) -> None:
        """It lets everybody wait, or only those who write."""
        kind = self._dice.choice(("ALL", "WRITE"))
        await self._tell("CLIENT", "PAUSE", str(self._dice.randint(50, 1_500)), kind)

    async def fill(self) -> None:
        """It has no room and takes nothing new."""
        limit = (await self._tell("CONFIG", "GET", "maxmemory"))["maxmemory"]
        await self._tell("CONFIG", "SET", "maxmemory", str(self.FULL_BYTES))
        try:
            await asyncio.sleep(self._dice.uniform(0.05, 1.5))
        finally:
            await self._tell("CONFIG", "SET", "maxmemory", limit)

    async def _pid(self) -> int:
        async with self._connected() as client:
            return int((await client.info("server"))["process_id"])

    async def _tell(self, *command: str) -> Any:
        async with self._connected() as client:
            return await client.execute_command(*command)

    def _connected(self) -> redis.asyncio.Redis:
        """A connection of the moment; what fails is not asked again."""
        return redis.asyncio.from_url(self._url, decode_responses=True, retry=Retry(NoBackoff(), 0))
