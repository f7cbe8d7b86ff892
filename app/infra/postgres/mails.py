"""Mails to customers: which order is to be told of what, and how far that is.

A row is written in the transaction of the event's effect, once for each order and kind. The address and the
order are read when the mail is sent, so they are nowhere but in the order's row. Rows are claimed for a
while; if the process dies between sending a mail and saying so here, the claim runs out and the mail is sent
again under the same id: at least once, and recognisable.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

import msgspec

from app.domain.order import Order
from app.infra.postgres.order_rows import order_from
from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.statements import statements

SQL: Final = statements("mails")

TOLD_WITHIN_S: Final = 24 * 3600.0
"""What happened longer ago is told to nobody: somebody reads old events again, or for the first time."""
ERROR_CHARACTERS_MAX: Final = 500

WAITING: Final = "waiting"
STATES: Final = (WAITING, "sent", "failed")


class News(msgspec.Struct, frozen=True):
    """Something that the customer of an order is to be told: the event's `sequence`, and when it happened."""

    order_id: str
    kind: str
    sequence: int
    time: datetime


class Mail(msgspec.Struct, frozen=True):
    """One claimed mail, with its order as it is now. `attempts` counts this one; `to` is None: no address."""

    kind: str
    attempts: int
    written_at: datetime
    to: str | None
    order: Order
    names: Mapping[str, str]
    traceparent: str | None = None

    @property
    def id(self) -> str:
        """What the mail is called, however often it is sent."""
        return f"{self.order.id}.{self.kind}"


class MailRecord(msgspec.Struct, frozen=True):
    """What became of a mail, as operators see it. What a server said (`last_error`) may quote the address."""

    id: str
    order_id: str
    kind: str
    state: str
    attempts: int
    created_at: datetime
    next_at: datetime | None
    ended_at: datetime | None
    last_error: str | None


class _Address(msgspec.Struct):
    email: str | None = None


async def write(connection: Connection, news: Sequence[News]) -> None:
    """Have these told, in the caller's transaction, where the orders name an address."""
    if news:
        rows = (msgspec.structs.astuple(each) for each in news)
        await connection.execute(SQL["write"], *zip(*rows, strict=True), TOLD_WITHIN_S)


class PostgresMails:
    """The mails. Every method raises Unavailable."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database

    async def is_due(self) -> bool:
        """Whether there is a mail to be sent now."""
        return bool((await self._database.fetch(SQL["is_due"]))[0][0])

    async def claim(self, mails_max: int, lease_s: float) -> list[Mail]:
        """Mails that are due, ours for `lease_s` seconds; of one order never a later one before the first."""
        async with self._database.connection() as connection:
            rows = await connection.fetch(SQL["claim"], mails_max, lease_s)
            orders = [order_from(row) for row in rows]
            skus = {line.sku for order in orders for line in order.lines}
            known = await connection.fetch(SQL["names"], sorted(skus)) if skus else ()
        names = {row["sku"]: row["name"] for row in known}
        return [
            Mail(
                row["kind"],
                row["attempts"],
                row["written_at"],
                _email(row["shipping_address"]),
                order,
                names,
                row["traceparent"],
            )
            for row, order in zip(rows, orders, strict=True)
        ]

    async def sent(self, mail: Mail) -> None:
        """The server has taken it."""
        await self._database.execute(SQL["sent"], mail.order.id, mail.kind)

    async def later(self, mail: Mail, pause_s: float, error: str) -> None:
        """It did not go; not before `pause_s` seconds again."""
        await self._database.execute(
            SQL["later"], mail.order.id, mail.kind, mail.attempts, pause_s, _kept(error)
        )

    async def failed(self, mail: Mail, error: str) -> None:
        """It will never go."""
        await self._database.execute(SQL["failed"], mail.order.id, mail.kind, mail.attempts, _kept(error))

    async def give_back(self, mails: Sequence[Mail]) -> None:
        """These were not tried; anybody may."""
        if mails:
            rows = ((mail.order.id, mail.kind, mail.attempts) for mail in mails)
            await self._database.execute(SQL["give_back"], *zip(*rows, strict=True))

    async def oldest_s(self) -> float:
        """The age of the oldest mail that waits, in seconds; 0 when none does."""
        return max(0.0, (await self._database.fetch(SQL["oldest"]))[0]["age_s"] or 0.0)

    async def page(self, state: str | None, order_id: str | None, limit: int) -> list[MailRecord]:
        """The newest mails, of one state or order where that is asked for."""
        rows = await self._database.fetch(SQL["page"], state, order_id, limit)
        return [
            MailRecord(
                id=f"{row['order_id']}.{row['kind']}",
                order_id=row["order_id"],
                kind=row["kind"],
                state=row["state"],
                attempts=row["attempts"],
                created_at=row["created_at"],
                next_at=row["next_at"] if row["state"] == WAITING else None,
                ended_at=row["ended_at"],
                last_error=row["last_error"],
            )
            for row in rows
        ]

    async def retry(self, ids: Sequence[str] | None) -> list[str]:
        """Have failed mails sent after all: these, or (None) every one; which of them."""
        rows = await self._database.fetch(SQL["retry"], None if ids is None else list(ids))
        return sorted(row["id"] for row in rows)

    async def forget(self, mails_max: int) -> int:
        """Delete mails that were sent or given up three months ago, at most so many; how many it was."""
        tag = await self._database.execute(SQL["forget"], mails_max)
        return int(tag.split()[-1])


def _email(text: str | None) -> str | None:
    return None if text is None else msgspec.json.decode(text, type=_Address).email


def _kept(error: str) -> str:
    return error.replace("\0", "")[:ERROR_CHARACTERS_MAX].encode(errors="replace").decode()
