"""Owns the events that the benchmark `stream` puts into streams: those of orders, from accepted to delivered.

Guarantees: types, data and sizes are the domain's own, the envelopes those that the relay publishes; orders
are under way side by side as on a busy day, each event behind the one before it of its order.
"""

import secrets
import time
from collections.abc import Iterator

import msgspec
import redis.asyncio

from app.contracts.documents import rfc3339
from app.contracts.streams import FIELD, Envelope, shard_of, stream
from app.domain import chain
from app.domain import commands as c
from app.domain.decide import decide, evolve_all, note
from app.domain.errors import Refusal
from app.domain.fulfilment import FulfilmentLine, FulfilmentPlan
from app.domain.ids import fulfilment_id, order_id
from bench import placed, shop

SHARDS = 4
"""What EVENT_SHARDS is unless somebody says otherwise."""
UNDER_WAY = 64
"""Orders whose events lie between each other in the streams."""
LINES = 2
_CHUNK = 5_000


def history() -> list[Envelope]:
    """The events of one order that went all the way, as they are published."""
    lines = [(shop.sku(number), 1 + number) for number in range(LINES)]
    order, first = placed.accepted("cust-0000000001", lines)
    parcel = fulfilment_id(order.id, 1)
    intent = f"pi_{secrets.token_hex(12)}"
    plan = FulfilmentPlan(parcel, "east", tuple(FulfilmentLine(*line) for line in lines))
    commands: tuple[c.Command, ...] = (
        c.RecordReservation((plan,)),
        c.RecordIntent(intent),
        c.RecordAuthorization(intent, order.total),
        c.RecordBooking(parcel, f"shp_{secrets.token_hex(12)}", f"TRK{secrets.token_hex(6)}"),
        c.ReleaseOrder(),
        c.RecordDispatch(parcel),
        c.RecordCapture(order.total),
        c.RecordDelivery(parcel),
    )
    events: list[msgspec.Struct] = [first]
    for command in commands:
        decision = decide(order, command)
        assert not isinstance(decision, Refusal), decision
        events.extend(decision)
        order = evolve_all(note(order, command), decision, order.updated_at)
    assert order.is_final
    linked = chain.chain(None, order.id, 0, tuple(events), order.created_at, order.correlation_id, None)
    return [
        Envelope(
            id=f"{event.subject}:{event.sequence}",
            type=event.type,
            source="/holdfast/bench",
            subject=event.subject,
            time=rfc3339(event.time),
            sequence=event.sequence,
            correlationid=event.correlation_id,
            data=msgspec.Raw(event.data.encode()),
        )
        for event in linked
    ]


class Histories:
    """Orders without end, each the same history under an id of its own."""

    def __init__(self) -> None:
        events = history()
        self._subject = events[0].subject.encode()
        self._bodies = [msgspec.json.encode(event) for event in events]
        self.events_of_each = len(events)
        self.body_bytes = sum(map(len, self._bodies)) // len(events)

    def entries(self, orders: int) -> Iterator[tuple[int, bytes]]:
        """The events of so many new orders: the shard and the envelope of each."""
        for first in range(0, orders, UNDER_WAY):
            now = time.time_ns() // 1_000_000
            names = [
                order_id(now, secrets.token_bytes(10)) for _ in range(first, min(orders, first + UNDER_WAY))
            ]
            shards = [shard_of(name, SHARDS) for name in names]
            for body in self._bodies:
                for name, shard in zip(names, shards, strict=True):
                    yield shard, body.replace(self._subject, name.encode())


async def fill(client: "redis.asyncio.Redis", environment: str, entries: Iterator[tuple[int, bytes]]) -> int:
    """Append entries to an environment's streams; how many."""
    keys = [stream(environment, shard) for shard in range(SHARDS)]
    done = 0
    pipeline = client.pipeline(transaction=False)
    for shard, body in entries:
        pipeline.execute_command("XADD", keys[shard], "*", FIELD, body)
        done += 1
        if done % _CHUNK == 0:
            await pipeline.execute()
    await pipeline.execute()
    return done


async def make_groups(client: "redis.asyncio.Redis", environment: str, group: str) -> None:
    """A group at the beginning of every stream."""
    for shard in range(SHARDS):
        await client.xgroup_create(stream(environment, shard), group, "0", mkstream=True)


async def empty(client: "redis.asyncio.Redis", environment: str, group: str) -> int:
    """Drop what was consumed, the groups stay; how many entries are not acknowledged."""
    left = 0
    for shard in range(SHARDS):
        key = stream(environment, shard)
        for info in await client.xinfo_groups(key):
            name = info["name"]
            if name in {group, group.encode()}:
                left += info["pending"] + (info["lag"] or 0)
        await client.xtrim(key, maxlen=0, approximate=False)
    return left
