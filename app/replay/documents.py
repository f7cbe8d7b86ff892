"""`OrderDocuments`: the cached documents of final orders, held against PostgreSQL, and written anew.

Documents follow from the orders' rows, not from events, and those of open orders live a second: what could be
wrong for longer are those of final orders. A document that is not there is no difference: whoever reads the
order next writes it. If the process dies here, documents that were taken away are written by their readers.
"""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from app.contracts.documents import encode_order
from app.domain.order import FINAL, Order
from app.infra.postgres import replays
from app.infra.postgres.order_rows import order_from
from app.infra.postgres.pool import Connection
from app.infra.postgres.replays import Asked, Change, Replay
from app.infra.redis.documents import Documents
from app.replay.asking import refused
from app.replay.handlers import Isolation, MovedError, Read

ORDERS_MAX: Final = 500
"""So many documents are asked for at once."""
SETTLE_S: Final = 0.5
"""A change is in PostgreSQL a moment before it is in Redis: what differs is looked at again after this."""

_COUNT: Final = (
    "SELECT count(*) FROM orders WHERE status = ANY ($1::text[]) AND ($2::text IS NULL OR id = $2)"
)
_PAGE: Final = """
SELECT * FROM orders WHERE id > $1 AND status = ANY ($2::text[]) AND ($3::text IS NULL OR id = $3)
ORDER BY id LIMIT $4
"""
_SOME: Final = "SELECT * FROM orders WHERE id = ANY ($1::text[])"
_FINAL: Final = sorted(FINAL)


class OrderDocuments:
    """The handler of order documents. Its "events" are orders."""

    name = "order_documents"
    about = "write the cached documents of final orders anew"
    isolation: Isolation = "read_committed"
    locks: tuple[str, ...] = ()
    changes_at_once = 200

    def __init__(self, documents: Documents | None) -> None:
        """Look after these; None where replays are only asked for."""
        self._documents = documents

    def check(self, asked: Asked) -> None:
        """A document is of an order as it is now. Raises Refused."""
        wanted = asked.selection
        given = {"from": wanted.since, "to": wanted.until, "type": wanted.type}
        for name, value in given.items():
            if value is not None:
                raise refused(f"/{name}", f"A document shows its order as it is now; leave `{name}` out.")
        if asked.parameters:
            raise refused("/parameters", f"{self.name} takes none.")

    async def prepare(self, connection: Connection, replay: Replay) -> int:
        """How many final orders there are."""
        return int(await connection.fetchval(_COUNT, _FINAL, replay.selection.order_id))

    async def read(self, connection: Connection, replay: Replay, size: int) -> Read:
        """Hold the documents of the next orders against their rows."""
        size = min(size, ORDERS_MAX)
        arguments = (_FINAL, replay.selection.order_id, size)
        rows = await connection.fetch(_PAGE, replay.cursor or "", *arguments)
        orders = [order_from(row) for row in rows]
        changes = await self._differing(orders)
        if changes:
            await asyncio.sleep(SETTLE_S)
            changes = await self._differing(await _orders(connection, (c.key["order"] for c in changes)))
        return Read(orders[-1].id if len(orders) == size else None, len(orders), changes)

    async def compare(self, connection: Connection, replay: Replay) -> dict[str, Any]:
        """Nothing but how many differ."""
        return {"rows": replay.done, "changes": replay.changes}

    async def verify(self, connection: Connection, replay: Replay, changes: Sequence[Change]) -> None:
        """Each document still differs in what was shown. Raises MovedError."""
        now = await self._differing(await _orders(connection, (c.key["order"] for c in changes)))
        found = {change.key["order"]: change for change in now}
        for change in changes:
            other = found.get(change.key["order"])
            if other is None or (other.before, other.after) != (change.before, change.after):
                raise MovedError(f"The document of {change.key['order']} differs in something else by now.")

    async def apply(
        self, connection: Connection, replay: Replay, changes: Sequence[Change]
    ) -> dict[str, Any]:
        """Write the documents of these orders, whatever is there."""
        orders = await _orders(connection, (change.key["order"] for change in changes))
        assert self._documents is not None
        await self._documents.rewrite(orders)
        return {}

    async def forget(self, connection: Connection, replay: Replay) -> None:
        """Nothing was kept."""

    async def _differing(self, orders: Sequence[Order]) -> list[Change]:
        assert self._documents is not None
        found = await asyncio.gather(*(self._documents.get(order.id) for order in orders))
        changes = []
        for order, body in zip(orders, found, strict=True):
            expected = encode_order(order)
            if body is not None and body != expected:
                was, is_now = _fields(body), _fields(expected)
                names = [name for name in {**was, **is_now} if was.get(name) != is_now.get(name)]
                before, after = ({n: v[n] for n in names if n in v} for v in (was, is_now))
                changes.append(replays.change({"order": order.id}, before, after))
        return changes


async def _orders(connection: Connection, ids: Iterable[str]) -> list[Order]:
    return [order_from(row) for row in await connection.fetch(_SOME, list(ids))]


def _fields(body: bytes) -> Mapping[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.DecodeError:
        return {"unreadable": True}
