"""`StreamUpkeep`: keeps the streams short, tells how far groups are behind, forgets consumers that are gone.

Only what every group has acknowledged is ever dropped, and of that a recent window is kept. If the process
dies here, the next round does it.
"""

from typing import Any, Final

import msgspec

from app.contracts.streams import CONSUMER, stream
from app.domain.errors import Unavailable
from app.hotpath.errors import ErrorReply
from app.infra.redis.clients import RedisClients
from app.infra.redis.streams import COMMAND_DEADLINE_S, ConsumerGroup, answering, is_no_stream

SHARDS_MAX: Final = 256
"""More shards than this there never are."""
TRIM_ROUNDS_MAX: Final = 20
"""How often one stream is trimmed in one go; the server drops some thousands of entries each time."""


class _Group(msgspec.Struct, frozen=True):
    """A group of one stream: the last entry it was given, the oldest it has not acknowledged, its lag."""

    name: str
    last_delivered: tuple[int, int]
    oldest_pending: tuple[int, int] | None
    lag: int
    pending: int


class Lag(msgspec.Struct, frozen=True):
    """How many entries a group has not been given, and how many it has not acknowledged, over all shards.

    `oldest_s` is the age of the oldest of both, in seconds by the server's clock; 0 when there is none.
    """

    unread: int
    pending: int
    oldest_s: float


class StreamUpkeep:
    """The streams of an environment. Every method raises Unavailable."""

    def __init__(self, clients: RedisClients, shards: int, groups: tuple[str, ...]) -> None:
        """Look after so many shards, which all of `groups` read."""
        self._clients = clients
        self._streams = [stream(clients.environment, shard) for shard in range(shards)]
        self._expected = set(groups)

    async def trim(self, *, keep_s: float) -> int:
        """Drop what every group has acknowledged and what is older than `keep_s`; how many entries went.

        Entries of a time to come (the server's clock was ahead) have no age: of those no window is kept.
        """
        seconds, _ = await self._ask("TIME")
        now, keep = int(seconds) * 1000, int(keep_s * 1000)
        dropped = 0
        for name in self._streams:
            groups = await self._groups(name)
            if not groups or not self._expected <= {group.name for group in groups}:
                continue  # a group that is missing has acknowledged nothing
            seen = min(group.oldest_pending or _after(group.last_delivered) for group in groups)
            floor = seen if seen[0] > now + abs(keep) else min(seen, (now - keep, 0))
            for _ in range(TRIM_ROUNDS_MAX):
                gone = await self._ask("XTRIM", name, "MINID", "~", f"{floor[0]}-{floor[1]}")
                dropped += gone
                if not gone:
                    break
        return dropped

    async def retire(self, *, idle_s: float) -> int:
        """Delete streams of shards that are no more, to which nobody has published for `idle_s`; how many.

        What they still hold the gap job has found long ago.
        """
        seconds, _ = await self._ask("TIME")
        first = len(self._streams)
        names = [stream(self._clients.environment, shard) for shard in range(first, SHARDS_MAX)]
        retired = 0
        if names and await self._ask("EXISTS", *names):
            for name in names:
                info = await self._ask("XINFO", "STREAM", name)
                if info and _parsed(_named(info)["last-generated-id"])[0] < (int(seconds) - idle_s) * 1000:
                    retired += await self._ask("DEL", name)
        return retired

    async def lag(self, group: str) -> Lag:
        """How far a group is behind."""
        unread = pending = 0
        oldest_s = 0.0
        for name in self._streams:
            one = next((one for one in await self._groups(name) if one.name == group), None)
            unread += await self._ask("XLEN", name) if one is None else one.lag
            pending += 0 if one is None else one.pending
            first = None if one is None else one.oldest_pending
            if first is None and (one is None or one.lag):
                after = "-" if one is None else "({}-{}".format(*one.last_delivered)
                found = await self._ask("XRANGE", name, after, "+", "COUNT", "1")
                first = _parsed(found[0][0]) if found else None
            if first is not None:
                seconds, _ = await self._ask("TIME")
                oldest_s = max(oldest_s, int(seconds) - first[0] / 1000)
        return Lag(unread, pending, oldest_s)

    async def forget_consumers(self, group: ConsumerGroup, name: str, *, idle_s: float) -> None:
        """Forget consumers of earlier releases, each under its own name, that hold nothing and were idle."""
        gone = set()
        for one in self._streams:
            for consumer in await self._info("CONSUMERS", one, name):
                if consumer["name"] == CONSUMER:
                    continue
                if consumer["idle"] >= idle_s * 1000 and not consumer["pending"]:
                    gone.add(consumer["name"])
        for consumer_name in gone:
            await group.remove(consumer_name, idle_s=idle_s)

    async def _groups(self, name: str) -> list[_Group]:
        groups = []
        for info in await self._info("GROUPS", name):
            oldest = None
            if info["pending"]:
                summary = await self._ask("XPENDING", name, info["name"])
                oldest = _parsed(summary[1]) if summary and summary[1] else None
            lag = info.get("lag")
            if lag is None:  # the server cannot tell after some deletions: at most what is there
                lag = await self._ask("XLEN", name)
            last = _parsed(info["last-delivered-id"])
            groups.append(_Group(info["name"].decode(), last, oldest, lag, info["pending"]))
        return groups

    async def _info(self, *what: str) -> list[dict[str, Any]]:
        """An XINFO reply; empty where there is no such stream or group."""
        found = await self._ask("XINFO", *what)
        return [_named(fields) for fields in found or ()]

    async def _ask(self, *parts: str) -> Any:  # noqa: ANN401 - whatever the command answers
        with answering():
            try:
                return await self._clients.hot.execute(*parts, safe=True, deadline_s=COMMAND_DEADLINE_S)
            except ErrorReply as error:
                if is_no_stream(error):  # whoever reads or writes it makes it again
                    raise Unavailable("redis", "a key of ours is not a stream") from error
                if error.code == "NOGROUP" or "no such key" in error.message:
                    return None
                raise


def _parsed(entry_id: bytes) -> tuple[int, int]:
    milliseconds, _, sequence = entry_id.partition(b"-")
    return int(milliseconds), int(sequence)


def _after(entry_id: tuple[int, int]) -> tuple[int, int]:
    return entry_id[0], entry_id[1] + 1


def _named(fields: Any) -> dict[str, Any]:  # noqa: ANN401
    pairs = fields.items() if isinstance(fields, dict) else zip(fields[::2], fields[1::2], strict=True)
    return {bytes(name).decode() if isinstance(name, bytes) else name: value for name, value in pairs}
