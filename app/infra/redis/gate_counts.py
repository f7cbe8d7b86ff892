"""`GateCounts`: the gate's counts in Redis, and the few steps by which they are changed.

The counts are one hash, SKU → pieces, with the generation beside them in a field of its own, so that counts
without a generation cannot be. Each step is one script. If the process dies between two of them, a look is
not ended (the next refusal begins another), or new counts are left to expire.
"""

import asyncio
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, Final

from app.contracts import admission as keys
from app.hotpath.client import Client
from app.hotpath.connection import Part
from app.hotpath.errors import ErrorReply, HotpathError
from app.hotpath.scripts import Script

ALONE_MS: Final = 400
"""How long a SKU is left alone once somebody has begun to look at it."""
LOCK_MS: Final = 2_000
"""How long a lock on rebuilding outlives whoever held it."""
CHUNK: Final = 500
"""SKUs that one command names."""
CHUNKS_AT_ONCE: Final = 4
"""More would keep others waiting."""
UNFINISHED_LIFETIME_MS: Final = 30_000
COMMAND_DEADLINE_S: Final = 1.0
"""Nobody waits for these commands, so they may take longer than a request's."""

_RUN_ID: Final = re.compile(rb"run_id:(\w+)")


class Look:
    """A look that was begun: each SKU's count when it was, and the generation of these counts."""

    __slots__ = ("busy", "generation", "seen")

    def __init__(self, generation: bytes) -> None:
        """Begin with nothing; `busy` SKUs are looked at by somebody else."""
        self.generation = generation
        self.seen: dict[str, bytes] = {}
        self.busy: list[str] = []


class GateCounts:
    """The counts of one environment. Every method raises HotpathError."""

    def __init__(self, client: Client, environment: str) -> None:
        """Keep them on this server."""
        self._client = client
        self._counts = keys.gate(environment, "counts")
        self._passed = keys.gate(environment, "passed")
        self._lock = keys.gate(environment, "rebuilding")
        self._unfinished = keys.gate(environment, "unfinished:")
        self._look = keys.gate(environment, "look:")

    async def begin(self, skus: Sequence[str]) -> Look | None:
        """Begin to look at some SKUs; None where there are no counts."""
        look = None
        for chunk in _chunks(skus):
            generation, *counts = await self._run(
                "gate_look", (self._counts, *(self._look + sku for sku in chunk)), (ALONE_MS, *chunk)
            )
            if generation is None:
                return None
            if look is None or look.generation != generation:
                look = Look(generation)
            for sku, count in zip(chunk, counts, strict=True):
                if count is None:
                    look.busy.append(sku)
                else:
                    look.seen[sku] = count
        return look

    async def note(self, look: Look) -> None:
        """Note the counts as they are now, right before PostgreSQL is asked.

        What was taken earlier is subtracted by PostgreSQL, once it is committed. Subtracted here as well, it
        would be refused to somebody; so a count errs upward, and the database decides.
        """
        for chunk in _chunks(look.seen):
            counts = await self._execute("HMGET", self._counts, *chunk)
            look.seen.update((sku, count or b"") for sku, count in zip(chunk, counts, strict=True))

    async def put(self, look: Look, found: Mapping[str, int]) -> None:
        """End a look: what PostgreSQL has becomes the count, less what was taken since it was asked."""
        for chunk in _chunks([sku for sku in look.seen if sku in found]):
            triples = [part for sku in chunk for part in (sku, found[sku], look.seen[sku])]
            await self._run("gate_put", (self._counts,), (look.generation, *triples))

    async def add(self, corrections: Mapping[str, int], *, back: bool) -> None:
        """Correct some counts: pieces given `back`, or more (or fewer) on the shelf."""
        for chunk in _chunks(corrections):
            pairs = [part for sku in chunk for part in (sku, corrections[sku])]
            await self._run("gate_add", (self._counts, self._passed), ("back" if back else "more", *pairs))

    async def forget(self) -> None:
        """Give all counts up: everything passes until they are made anew."""
        await self._execute("UNLINK", self._counts, self._passed)

    async def are_here(self) -> bool:
        """Whether there are counts, made in this life of the server. Older ones are given up."""
        generation, server = await self._execute("HMGET", self._counts, ":generation", ":server")
        if generation is not None and server != await self._server():
            await self.forget()
            return False
        return generation is not None

    async def lock(self) -> str | None:
        """Lock rebuilding; the token, or None where somebody rebuilds just now."""
        token = secrets.token_hex(8)
        taken = await self._execute("SET", self._lock, token, "NX", "PX", LOCK_MS)
        if taken is not None:
            return token
        # Else it would be locked for ever, or for as long as the clock was set back.
        left_ms = await self._execute("PTTL", self._lock)
        if left_ms == -1 or left_ms > LOCK_MS:
            await self.unlock()
        return None

    async def hold(self) -> None:
        """Keep the lock until cancelled."""
        while True:
            await asyncio.sleep(LOCK_MS / 4_000)
            with suppress(HotpathError):
                await self._execute("PEXPIRE", self._lock, LOCK_MS)

    async def replace(self, token: str, found: Mapping[str, int]) -> list[str] | None:
        """Let what was found be the counts, less what passed since there were none.

        Returns the SKUs that passed, or None where the lock was lost on the way.
        """
        unfinished = self._unfinished + token
        chunks = _chunks(found)
        while some := list(islice(chunks, CHUNKS_AT_ONCE)):
            await asyncio.gather(*(self._put_aside(unfinished, chunk, found) for chunk in some))
        passed = await self._run(
            "gate_open",
            (self._lock, unfinished, self._counts, self._passed),
            (token, secrets.token_hex(8), await self._server()),
        )
        return None if passed is None else [sku.decode() for sku in passed]

    def _put_aside(
        self, unfinished: str, skus: Sequence[str], found: Mapping[str, int]
    ) -> "asyncio.Future[tuple[Any, Any]]":
        pairs = [part for sku in skus for part in (sku, found[sku])]
        return asyncio.gather(
            self._execute("HSET", unfinished, *pairs),
            self._execute("PEXPIRE", unfinished, UNFINISHED_LIFETIME_MS),
        )

    async def unlock(self) -> None:
        """Let somebody else rebuild."""
        await self._execute("DEL", self._lock)

    async def _server(self) -> bytes:
        """The server's run id; it is another one after a restart or a failover. Empty where it is secret."""
        try:
            said = await self._execute("INFO", "server")
        except ErrorReply:
            return b""
        found = _RUN_ID.search(said if isinstance(said, bytes) else said.encode())
        return found[1] if found else b""

    def _execute(self, *parts: Part) -> "asyncio.Future[Any]":
        return self._client.execute(*parts, safe=True, deadline_s=COMMAND_DEADLINE_S)

    async def _run(self, name: str, given: Sequence[str], arguments: Sequence[Part]) -> Any:  # noqa: ANN401
        return await self._client.evaluate(Script.load(name), given, arguments, deadline_s=COMMAND_DEADLINE_S)


def _chunks(skus: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(skus)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk
