"""The event streams: appending to them, and reading those of a group's shards that one owns.

An entry that was read stays pending until it is acknowledged; what a dead owner leaves pending is claimed by
the next. Streams and groups that are gone are made again from the beginning; a key of ours that holds
something else than a stream is deleted first. Redis is never the truth here: whoever reads compares with
PostgreSQL, so what is lost, doubled or late in a stream changes nothing.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec
from redis.exceptions import ResponseError

from app.contracts.streams import CONSUMER, FIELD, Envelope, live, shard_of, stream
from app.domain.errors import Unavailable
from app.infra.redis.clients import AWAY, NOT_NOW, RedisClients, command
from app.infra.redis.scripts import source
from app.observability.logging import logger

PUBLISH_DEADLINE_S: Final = 5.0
COMMAND_DEADLINE_S: Final = 2.0

_REMOVE_CONSUMER: Final = source("remove_consumer")
_DELETE_UNLESS_STREAM: Final = source("delete_unless_stream")
_NO_STREAM: Final = "WRONGTYPE"
BEGINNING: Final = b"0-0"
"""Where claiming starts, and what the server answers when it has seen everything."""
_GONE: Final = ("NOGROUP", "UNBLOCKED", _NO_STREAM)
_encoder: Final = msgspec.json.Encoder()

log = logger("streams")


class GroupGoneError(Exception):
    """The stream or the group is gone: Redis was emptied, or overwritten. `create` makes them again."""


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

        Whoever follows events live is told of each in the same round trip, also of one that is refused.
        Behind the first that a shard refused (no memory), none of that shard counts, so that order is kept.
        A shard whose key is not a stream refuses once: the key is deleted, whoever reads sees it is gone.
        Raises Unavailable where Redis did not answer: any of them may have been appended.
        """
        shards = [shard_of(envelope.subject, self._shards) for envelope in envelopes]
        async with self._clients.bounded(PUBLISH_DEADLINE_S):
            pipeline = self._clients.writes.pipeline(transaction=False)
            channel = live(self._clients.environment)
            for shard, envelope in zip(shards, envelopes, strict=True):
                key, body = stream(self._clients.environment, shard), _encoder.encode(envelope)
                pipeline.execute_command("XADD", key, "*", FIELD, body)
                pipeline.execute_command("PUBLISH", channel, body)
            replies = (await pipeline.execute(raise_on_error=False))[::2]
            broken = {shard for shard, reply in zip(shards, replies, strict=True) if is_no_stream(reply)}
            names = [stream(self._clients.environment, shard) for shard in sorted(broken)]
            await _delete_unless_streams(self._clients, names)
        kept = set[int]()
        published = []
        for shard, reply in zip(shards, replies, strict=True):
            if isinstance(reply, Exception):
                kept.add(shard)
            published.append(shard not in kept)
        return published


class ConsumerGroup:
    """All shards of one group. Whoever owns a shard reads it under the one name that all owners share."""

    def __init__(self, clients: RedisClients, shards: int, group: str) -> None:
        """Read as `group`."""
        self._clients = clients
        self._group = group
        self._streams = [stream(clients.environment, shard) for shard in range(shards)]
        self._shard = {name.encode(): shard for shard, name in enumerate(self._streams)}

    async def create(self) -> bool:
        """Make streams and groups where there are none, from the beginning; whether any was missing."""
        async with self._clients.bounded(COMMAND_DEADLINE_S):
            replies = await self._create()
            broken = [name for name, reply in zip(self._streams, replies, strict=True) if is_no_stream(reply)]
            if broken:
                await _delete_unless_streams(self._clients, broken)
                replies = await self._create()
        for reply in replies:
            if isinstance(reply, Exception) and "BUSYGROUP" not in str(reply):
                raise Unavailable("redis", str(reply))
        return not all(isinstance(reply, Exception) for reply in replies)

    async def _create(self) -> list[Any]:
        pipeline = self._clients.writes.pipeline(transaction=False)
        for name in self._streams:
            pipeline.execute_command("XGROUP", "CREATE", name, self._group, "0", "MKSTREAM")
        replies: list[Any] = await pipeline.execute(raise_on_error=False)
        return replies

    async def read(self, shards: Iterable[int], *, count: int, block_s: float) -> list[Entry]:
        """New entries, at most `count` a shard; waits for the first at most `block_s` (BLOCK_MAX_S)."""
        names = [self._streams[shard] for shard in shards]
        reader = ("XREADGROUP", "GROUP", self._group, CONSUMER, "COUNT", count)
        where: list[str | bytes] = ["STREAMS", *names, *([b">"] * len(names))]
        async with self._patiently():
            block_ms = max(1, int(block_s * 1000))
            return self._entries(await command(self._clients.blocking, *reader, "BLOCK", block_ms, *where))

    def _entries(self, reply: Any) -> list[Entry]:  # noqa: ANN401
        return [
            Entry(self._shard[bytes(name)], entry_id, _body(fields))
            for name, entries in reply or ()
            for entry_id, fields in entries
        ]

    async def claim(
        self, starts: Mapping[int, bytes], *, idle_s: float, count: int
    ) -> tuple[list[Entry], dict[int, bytes]]:
        """Entries that anybody of the group was given `idle_s` ago and has not acknowledged, oldest first.

        From `starts` (shard → id) on, about `count` a shard; with them, the starts of what is left to claim.
        """
        claimed: list[Entry] = []
        rest: dict[int, bytes] = {}
        async with self._clients.bounded(COMMAND_DEADLINE_S), _gone_is_told():
            for shard, start in starts.items():
                where = (self._streams[shard], self._group, CONSUMER)
                idle_ms = int(idle_s * 1000)
                claiming = ("XAUTOCLAIM", *where, idle_ms, start, "COUNT", count)
                reply = await command(self._clients.writes, *claiming)
                claimed += (Entry(shard, entry_id, _body(fields)) for entry_id, fields in reply[1])
                if reply[0] != BEGINNING:
                    rest[shard] = reply[0]
        return claimed, rest

    async def acknowledge(self, entries: Iterable[Entry]) -> None:
        """These have had their effect."""
        ids: dict[int, list[bytes]] = {}
        for entry in entries:
            ids.setdefault(entry.shard, []).append(entry.id)
        if not ids:
            return
        async with self._clients.bounded(COMMAND_DEADLINE_S), _gone_is_told():
            pipeline = self._clients.writes.pipeline(transaction=False)
            for shard, those in ids.items():
                pipeline.execute_command("XACK", self._streams[shard], self._group, *those)
            await pipeline.execute()

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
        raise Unavailable("redis", str(error)) from error


def is_no_stream(reply: object) -> bool:
    """Whether this is the complaint that a key holds something else than a stream."""
    return isinstance(reply, ResponseError) and _NO_STREAM in str(reply)


async def _delete_unless_streams(clients: RedisClients, names: Sequence[str]) -> None:
    """Delete these keys of ours where they hold something else; everything of ours is in PostgreSQL."""
    for name in names:
        if await command(clients.writes, "EVAL", _DELETE_UNLESS_STREAM, 1, name):
            log.warning("deleted_what_was_no_stream", key=name)


def _body(fields: Any) -> bytes:  # noqa: ANN401
    return bytes(fields.get(FIELD, b"")) if fields else b""
