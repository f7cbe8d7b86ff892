"""The event streams: appending to them, and reading those of a group's shards that one owns.

An entry that was read stays pending until it is acknowledged; what a dead owner leaves pending is claimed by
the next. Streams and groups that are gone are made again from the beginning; a key of ours that holds
something else than a stream is deleted first. Redis is never the truth here: whoever reads compares with
PostgreSQL, so what is lost, doubled or late in a stream changes nothing.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from app.contracts.streams import CONSUMER, FIELD, Envelope, live, relay_fence, shard_of, stream
from app.domain.errors import Unavailable
from app.hotpath.client import Client
from app.hotpath.errors import ErrorReply, HotpathError, NotNow
from app.hotpath.scripts import Script
from app.infra.redis.clients import RedisClients
from app.infra.redis.scripts import source
from app.observability.logging import logger

PUBLISH_DEADLINE_S: Final = 5.0
COMMAND_DEADLINE_S: Final = 2.0
FENCE_S: Final = 60
"""How long a stream remembers the newest token; who stood still for longer publishes what is long there."""

_APPEND: Final = Script.of(source("append_events"))
_REMOVE_CONSUMER: Final = Script.of(source("remove_consumer"))
_DELETE_UNLESS_STREAM: Final = Script.of(source("delete_unless_stream"))
_NO_STREAM: Final = "WRONGTYPE"
_FENCED: Final = -1
BEGINNING: Final = b"0-0"
"""Where claiming starts, and what the server answers when it has seen everything."""
_GONE: Final = ("NOGROUP", "UNBLOCKED", _NO_STREAM)
_encoder: Final = msgspec.json.Encoder()

log = logger("streams")


class GroupGoneError(Exception):
    """The stream or the group is gone: Redis was emptied, or overwritten. `create` makes them again."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry of a shard's stream: an envelope as JSON, or empty where the stream holds no event."""

    shard: int
    id: bytes
    body: bytes


class EventStreams:
    """The streams of an environment, for the relay."""

    def __init__(self, clients: RedisClients, shards: int) -> None:
        """Spread events over so many shards."""
        self._clients = clients
        self.shards = shards
        self.fenced_off: dict[int, tuple[int, float]] = {}
        """Shards whose streams refuse whoever publishes: which token, and since when (monotonic)."""

    async def publish(
        self, envelopes: Sequence[Envelope], tokens: Mapping[int, int] | None = None
    ) -> list[bool]:
        """Append events in order, in one round trip; which of them are published.

        Whoever follows events live is told of each in the same round trip, also of one that is refused.
        `tokens` (shard → token) are the leases of whoever publishes: a shard that a newer token has written
        to refuses. What a shard refuses it refuses as a whole, so that order is kept. One whose key is not a
        stream refuses once: the key is deleted, whoever reads sees it is gone.
        Raises Unavailable where no shard answered, or has memory: any of them may have been appended.
        """
        bodies: dict[int, list[bytes]] = {}
        shards = [shard_of(envelope.subject, self.shards) for envelope in envelopes]
        for shard, envelope in zip(shards, envelopes, strict=True):
            bodies.setdefault(shard, []).append(_encoder.encode(envelope))
        held = tokens or {}
        appended = await asyncio.gather(
            *(self._append(shard, held.get(shard, 0), those) for shard, those in bodies.items()),
            return_exceptions=True,
        )
        failed = [outcome for outcome in appended if isinstance(outcome, BaseException)]
        for error in failed:
            if len(failed) == len(appended) or not isinstance(error, Unavailable):
                raise error
        taken = {shard for shard, outcome in zip(bodies, appended, strict=True) if outcome is True}
        return [shard in taken for shard in shards]

    async def _append(self, shard: int, token: int, bodies: Sequence[bytes]) -> bool:
        environment = self._clients.environment
        key = stream(environment, shard)
        keys = (key, relay_fence(environment, shard, self.shards))
        with answering():
            try:
                done = await self._clients.hot.evaluate(
                    _APPEND,
                    keys,
                    (token, FENCE_S, live(environment), FIELD, *bodies),
                    deadline_s=PUBLISH_DEADLINE_S,
                )
            except ErrorReply as error:
                if error.code != _NO_STREAM:
                    raise
                await _delete_unless_streams(self._clients, (key,))
                return False
        if done == _FENCED:
            log.info("relay_fenced_off", shard=shard, token=token)
            if self.fenced_off.get(shard, (0, 0.0))[0] != token:
                self.fenced_off[shard] = (token, time.monotonic())
        else:
            self.fenced_off.pop(shard, None)
        return bool(done != _FENCED)

    async def outgrow(self, shard: int, token: int) -> None:
        """This token is the newest: what the stream saw of newer ones is of a PostgreSQL that was put back.

        Raises Unavailable.
        """
        log.warning("fence_from_another_past", shard=shard, token=token)
        with answering():
            key = relay_fence(self._clients.environment, shard, self.shards)
            await self._clients.hot.execute("SET", key, token, "EX", FENCE_S)
        self.fenced_off.pop(shard, None)


class ConsumerGroup:
    """All shards of one group. Whoever owns a shard reads it under the one name that all owners share."""

    def __init__(self, clients: RedisClients, shards: int, group: str) -> None:
        """Read as `group`."""
        self._clients = clients
        self._group = group
        self._streams = [stream(clients.environment, shard) for shard in range(shards)]
        self._shard = {name.encode(): shard for shard, name in enumerate(self._streams)}
        self._reads: Client | None = None

    async def create(self) -> bool:
        """Make streams and groups where there are none, from the beginning; whether any was missing."""
        with answering():
            replies = await self._create()
            broken = [name for name, reply in zip(self._streams, replies, strict=True) if is_no_stream(reply)]
            if broken:
                await _delete_unless_streams(self._clients, broken)
                replies = await self._create()
            for reply in replies:
                if isinstance(reply, Exception) and "BUSYGROUP" not in str(reply):
                    raise reply
        return not all(isinstance(reply, Exception) for reply in replies)

    async def _create(self) -> list[Any]:
        making = [self._ask("XGROUP", "CREATE", name, self._group, "0", "MKSTREAM") for name in self._streams]
        return await asyncio.gather(*making, return_exceptions=True)

    async def read(self, shards: Iterable[int], *, count: int, block_s: float) -> list[Entry]:
        """New entries, at most `count` a shard; waits for the first at most `block_s` (BLOCK_MAX_S), 0: not.

        One caller at a time. Cancelling gives up the connection: what was read in that moment is pending.
        """
        names = [self._streams[shard] for shard in shards]
        parts: list[str | bytes | int] = ["GROUP", self._group, CONSUMER, "COUNT", count]
        if block_s:
            parts += ("BLOCK", max(1, int(block_s * 1000)))
        parts += ("STREAMS", *names, *([b">"] * len(names)))
        if self._reads is None:
            self._reads = self._clients.waiting(f"reads-{self._group}")
        client = self._reads
        try:
            with _gone_is_told():
                return self._entries(await client.execute("XREADGROUP", *parts))
        except asyncio.CancelledError:
            self._reads = None
            self._clients.start(self._clients.dismiss(client))
            raise

    def _entries(self, reply: Any) -> list[Entry]:  # noqa: ANN401
        return [
            Entry(shard, entry_id, fields[1] if fields and fields[0] == FIELD else _body(fields))
            for name, entries in (reply or {}).items()
            for shard in (self._shard[name],)
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
        idle_ms = int(idle_s * 1000)
        asked = [
            self._ask(
                "XAUTOCLAIM", self._streams[shard], *(self._group, CONSUMER, idle_ms, start), "COUNT", count
            )
            for shard, start in starts.items()
        ]
        with _gone_is_told():
            for shard, reply in zip(starts, await _all_of(asked), strict=True):
                claimed += (Entry(shard, entry_id, _body(fields)) for entry_id, fields in reply[1])
                if reply[0] != BEGINNING:
                    rest[shard] = reply[0]
        return claimed, rest

    async def acknowledge(self, entries: Iterable[Entry]) -> None:
        """These have had their effect."""
        ids: dict[int, list[bytes]] = {}
        for entry in entries:
            those = ids.get(entry.shard)
            if those is None:
                those = ids[entry.shard] = []
            those.append(entry.id)
        asked = []
        with _gone_is_told():
            for shard, those in ids.items():
                asked.append(self._ask("XACK", self._streams[shard], self._group, *those))
                await asyncio.sleep(0)  # thousands of ids: whoever waits for a transaction goes first
            await _all_of(asked)

    async def remove(self, consumer: str | bytes, *, idle_s: float) -> None:
        """Have a consumer forgotten wherever it holds nothing and was idle for so long."""
        arguments = (self._group, consumer, int(idle_s * 1000))
        with answering():
            for name in self._streams:
                await self._clients.hot.evaluate(
                    _REMOVE_CONSUMER, (name,), arguments, deadline_s=COMMAND_DEADLINE_S
                )

    def _ask(self, *parts: str | bytes | int) -> "asyncio.Future[Any]":
        """A command that does no harm twice."""
        return self._clients.hot.execute(*parts, safe=True, deadline_s=COMMAND_DEADLINE_S)


async def _all_of(asked: "Sequence[asyncio.Future[Any]]") -> list[Any]:
    """The answers to commands of one moment. Raises the first error among them, when all are answered."""
    replies = await asyncio.gather(*asked, return_exceptions=True)
    for reply in replies:
        if isinstance(reply, BaseException):
            raise reply
    return replies


@contextmanager
def answering() -> Iterator[None]:
    """Turn what is no answer into Unavailable, in words that do not change from one attempt to the next."""
    try:
        yield
    except NotNow as error:
        raise Unavailable("redis", f"it refuses: {error.code}") from error
    except ErrorReply as error:
        raise Unavailable("redis", error.message) from error
    except HotpathError as error:  # why, the hot client says once
        raise Unavailable("redis", "it does not answer") from error


@contextmanager
def _gone_is_told() -> Iterator[None]:
    with answering():
        try:
            yield
        except ErrorReply as error:
            if error.code in _GONE:
                raise GroupGoneError(error.message) from error
            raise


def is_no_stream(reply: object) -> bool:
    """Whether this is the complaint that a key holds something else than a stream."""
    return isinstance(reply, ErrorReply) and reply.code == _NO_STREAM


async def _delete_unless_streams(clients: RedisClients, names: Sequence[str]) -> None:
    """Delete these keys of ours where they hold something else; everything of ours is in PostgreSQL."""
    for name in names:
        if await clients.hot.evaluate(_DELETE_UNLESS_STREAM, (name,), deadline_s=COMMAND_DEADLINE_S):
            log.warning("deleted_what_was_no_stream", key=name)


def _body(fields: Any) -> bytes:  # noqa: ANN401
    """The one field of an entry of ours; of what else there may be, what has our field's name."""
    if not fields:
        return b""
    if fields[0] == FIELD:
        return fields[1]  # type: ignore[no-any-return]
    return bytes(dict(zip(fields[::2], fields[1::2], strict=True)).get(FIELD, b""))
