"""The event streams: appending to them, and reading them as one consumer of a group.

An entry that was read stays pending until it is acknowledged; what a dead consumer leaves pending is claimed
by the living. Streams and groups that are gone are made again from the beginning. Redis is never the truth
here: whoever reads compares with PostgreSQL, so what is lost, doubled or late in a stream changes nothing.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from app.contracts.streams import FIELD, Envelope, shard_of, stream
from app.domain.errors import Unavailable
from app.infra.redis.clients import AWAY, NOT_NOW, RedisClients, command
from app.infra.redis.scripts import source

PUBLISH_DEADLINE_S: Final = 5.0
COMMAND_DEADLINE_S: Final = 2.0

_REMOVE_CONSUMER: Final = source("remove_consumer")
_GONE: Final = ("NOGROUP", "UNBLOCKED")
_encoder: Final = msgspec.json.Encoder()


class GroupGoneError(Exception):
    """The stream or the group is gone: Redis was emptied. `create` makes them again."""


class Entry(msgspec.Struct, frozen=True):
    """One entry of a shard's stream: an envelope as JSON, or empty where the stream holds no event."""

    shard: int
    id: bytes
    body: bytes


class EventStreams:
    """The streams of an environment, for the relay."""

    def __init__(self, clients: RedisClients, shards: int) -> None:
        """Spread events over so many shards."""
        self._clients = clients
        self._shards = shards

    async def publish(self, envelopes: Sequence[Envelope]) -> list[bool]:
        """Append events in order, in one round trip; which of them are published.

        Behind the first that a shard refused (no memory), none of that shard counts, so that order is kept.
        Raises Unavailable where Redis did not answer: any of them may have been appended.
        """
        shards = [shard_of(envelope.subject, self._shards) for envelope in envelopes]
        async with self._clients.bounded(PUBLISH_DEADLINE_S):
            pipeline = self._clients.writes.pipeline(transaction=False)
            for shard, envelope in zip(shards, envelopes, strict=True):
                key = stream(self._clients.environment, shard)
                pipeline.execute_command("XADD", key, "*", FIELD, _encoder.encode(envelope))
            replies = await pipeline.execute(raise_on_error=False)
        refused: set[int] = set()
        for shard, reply in zip(shards, replies, strict=True):
            if isinstance(reply, OutOfMemoryError | ReadOnlyError):
                refused.add(shard)
            elif isinstance(reply, Exception):
                raise reply
        kept = set[int]()
        published = []
        for shard, reply in zip(shards, replies, strict=True):
            if isinstance(reply, Exception):
                kept.add(shard)
            published.append(shard not in kept)
        return published


class ConsumerGroup:
    """All shards, read as one consumer of one group."""

    def __init__(self, clients: RedisClients, shards: int, group: str, consumer: str) -> None:
        """Read as `consumer`, a name that no other process has."""
        self._clients = clients
        self._group = group
        self._consumer = consumer
        self._streams = [stream(clients.environment, shard) for shard in range(shards)]
        self._shard = {name.encode(): shard for shard, name in enumerate(self._streams)}

    async def create(self) -> bool:
        """Make streams and groups where there are none, from the beginning; whether any was missing."""
        async with self._clients.bounded(COMMAND_DEADLINE_S):
            pipeline = self._clients.writes.pipeline(transaction=False)
            for name in self._streams:
                pipeline.execute_command("XGROUP", "CREATE", name, self._group, "0", "MKSTREAM")
            replies = await pipeline.execute(raise_on_error=False)
        for reply in replies:
            if isinstance(reply, NOT_NOW):
                raise Unavailable("redis", str(reply))
            if isinstance(reply, Exception) and "BUSYGROUP" not in str(reply):
                raise reply
        return not all(isinstance(reply, Exception) for reply in replies)

    async def read(self, *, count: int, block_s: float) -> list[Entry]:
        """New entries, at most `count` a shard; waits for the first at most `block_s` (BLOCK_MAX_S)."""
        options = ("COUNT", count, "BLOCK", max(1, int(block_s * 1000)))
        async with self._patiently():
            return self._entries(await self._read(options, b">"))

    async def pending(self, *, count: int) -> list[Entry]:
        """Entries that this consumer read and has not acknowledged, at most `count` a shard."""
        async with self._patiently():
            return self._entries(await self._read(("COUNT", count), b"0"))

    async def _read(self, options: tuple[str | int, ...], since: bytes) -> Any:  # noqa: ANN401
        since_each = [since] * len(self._streams)
        where: list[str | bytes] = ["STREAMS", *self._streams, *since_each]
        reader = ("XREADGROUP", "GROUP", self._group, self._consumer)
        return await command(self._clients.blocking, *reader, *options, *where)

    def _entries(self, reply: Any) -> list[Entry]:  # noqa: ANN401
        return [
            Entry(self._shard[bytes(name)], entry_id, _body(fields))
            for name, entries in reply or ()
            for entry_id, fields in entries
        ]

    async def claim(self, *, idle_s: float, count: int) -> list[Entry]:
        """Take over entries that nobody has acknowledged for `idle_s`, at most `count` a shard."""
        claimed: list[Entry] = []
        async with self._clients.bounded(COMMAND_DEADLINE_S), _gone_is_told():
            for shard, name in enumerate(self._streams):
                reply = await command(
                    self._clients.writes,
                    "XAUTOCLAIM",
                    name,
                    self._group,
                    self._consumer,
                    int(idle_s * 1000),
                    "0",
                    "COUNT",
                    count,
                )
                claimed += (Entry(shard, entry_id, _body(fields)) for entry_id, fields in reply[1])
        return claimed

    async def acknowledge(self, entries: Iterable[Entry]) -> None:
        """These have had their effect."""
        ids: dict[int, list[bytes]] = {}
        for entry in entries:
            ids.setdefault(entry.shard, []).append(entry.id)
        if not ids:
            return
        async with self._clients.bounded(COMMAND_DEADLINE_S):
            pipeline = self._clients.writes.pipeline(transaction=False)
            for shard, those in ids.items():
                pipeline.execute_command("XACK", self._streams[shard], self._group, *those)
            await pipeline.execute()

    async def leave(self) -> None:
        """Have this consumer forgotten where it holds nothing; elsewhere the others claim what it holds."""
        await self.remove(self._consumer, idle_s=0)

    async def remove(self, consumer: str | bytes, *, idle_s: float) -> None:
        """Have a consumer forgotten wherever it holds nothing and was idle for so long."""
        async with self._clients.bounded(COMMAND_DEADLINE_S):
            for name in self._streams:
                await command(
                    self._clients.writes,
                    "EVAL",
                    _REMOVE_CONSUMER,
                    1,
                    name,
                    self._group,
                    consumer,
                    int(idle_s * 1000),
                )

    @asynccontextmanager
    async def _patiently(self) -> AsyncIterator[None]:
        """Commands that wait: no deadline but the client's own, no breaker."""
        try:
            async with _gone_is_told():
                yield
        except (*AWAY, *NOT_NOW) as error:
            raise Unavailable("redis", type(error).__name__) from error


@asynccontextmanager
async def _gone_is_told() -> AsyncIterator[None]:
    try:
        yield
    except ResponseError as error:
        if str(error).startswith(_GONE):
            raise GroupGoneError(str(error)) from error
        raise


def _body(fields: Any) -> bytes:  # noqa: ANN401
    return bytes(fields.get(FIELD, b"")) if fields else b""
