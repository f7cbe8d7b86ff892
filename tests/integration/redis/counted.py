"""How the gate's tests see its counts, and ask it as a gateway does."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from app.contracts import admission as keys
from app.hotpath.address import Address
from app.hotpath.admission import Admission, Verdict
from app.hotpath.admission_policy import Policy
from app.hotpath.buckets import Buckets
from app.hotpath.client import Client
from app.infra.redis.gate import Gate
from tests.integration.redis.books import Books

ENVIRONMENT = "test"
COUNTS = keys.gate(ENVIRONMENT, "counts")
PLENTY = Policy("write", 1_000_000)
NUMBERS = itertools.count()


@asynccontextmanager
async def connected(url: str, name: str) -> AsyncIterator[Client]:
    """A client that is up."""
    async with Client(Address.parse(url), name=name, deadline_s=30) as client:
        assert await client.ready(60)
        yield client


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 60) -> float:
    """Wait until something is so; the seconds it took."""
    started = time.perf_counter()
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.005)
    return time.perf_counter() - started


async def counted(client: Client) -> dict[str, int] | None:
    """The counts; None where there are none."""
    found = await client.execute("HGETALL", COUNTS)
    counts = {sku.decode(): int(count) for sku, count in found.items() if not sku.startswith(b":")}
    return counts if b":generation" in found else None


async def shows(client: Client, **counts: int) -> bool:
    """Whether these are the counts."""
    return await counted(client) == counts


async def admit(client: Client, gate: Gate, wanted: dict[str, int]) -> Verdict:
    """Ask the gate, and tell it what came of it, as the gateway does."""
    verdict = await Admission(client, Buckets()).admit(
        "caller",
        PLENTY,
        ("{caller}:limit", f"{{caller}}:answer:{next(NUMBERS)}", COUNTS, keys.gate(ENVIRONMENT, "passed")),
        body_hash=b"h" * 32,
        items=tuple(wanted),
        quantities=tuple(wanted.values()),
    )
    if verdict.is_open:
        gate.missing()
    elif verdict.sold_out:
        gate.look_again(verdict.sold_out)
    elif not verdict.is_known:
        gate.unknown(wanted)
    return verdict


async def asked(books: Books, times: int) -> bool:
    """Whether PostgreSQL was asked so often."""
    return len(books.questions) >= times


async def nobody_rebuilds(client: Client) -> bool:
    """Whether the lock is free."""
    return await client.execute("EXISTS", keys.gate(ENVIRONMENT, "rebuilding")) == 0


async def has_counts(client: Client) -> bool:
    """Whether there are any."""
    return await counted(client) is not None
