"""`WebhookEndpoints`: where customers want events sent. Secrets are kept here and go only to the sender.

Making an endpoint and rotating its secret show the secret in the answer to the request's key, which is stored
with it: so a repetition shows the same one. If the process dies here, both are there or neither is. A deleted
endpoint's row stays, without what its owner said, because deliveries to it may be under way.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

import asyncpg
import msgspec
from msgspec.structs import replace

from app.domain.errors import Refusal, Refused, Unavailable
from app.infra.postgres.answers import Answer, Request, store_answer, stored_answer
from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.statements import statements

SQL: Final = statements("webhook_endpoints")

ENDPOINTS_MAX: Final = 50
"""That one customer may have, and that may be bound to none: each event is sent to all that want it."""
FULL: Final = "too-many-webhook-endpoints"


class Endpoint(msgspec.Struct, frozen=True):
    """An endpoint as its owner sees it, without its secret. Until `previous_until` the old one signs, too.

    One that fails again and again is sent nothing before `left_alone_until`, and then one delivery at a time.
    """

    id: str
    url: str
    description: str
    event_types: tuple[str, ...]
    customer_id: str | None
    is_enabled: bool
    disabled_reason: str | None
    previous_until: datetime | None
    left_alone_until: datetime | None
    created_at: datetime
    updated_at: datetime


class Wanted(msgspec.Struct, frozen=True):
    """What somebody says of an endpoint; None where it is to stay as it is."""

    url: str | None = None
    description: str | None = None
    event_types: tuple[str, ...] | None = None
    is_enabled: bool | None = None


class OvertakenError(Exception):
    """Another request with the same key was first."""


Encode = Callable[[Endpoint, str], bytes]
"""The answer's body for an endpoint and its secret."""


class WebhookEndpoints:
    """The endpoints of record. Every method raises Unavailable.

    `customer_id` is whom the caller is bound to, and sees nobody else's; None sees all.
    """

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database

    async def add(
        self,
        request: Request,
        identity: str,
        wanted: Wanted,
        *,
        customer_id: str | None,
        secret: str,
        encode: Encode,
    ) -> Answer:
        """A new endpoint, and the answer that shows its secret. Raises Refused (`FULL`, the key's)."""

        async def make(connection: Connection) -> Answer:
            await connection.execute(SQL["one_by_one"], customer_id)
            if await connection.fetchval(SQL["count"], customer_id) >= ENDPOINTS_MAX:
                detail = f"There are {ENDPOINTS_MAX} endpoints already."
                raise Refused(Refusal(FULL, detail))
            row = await connection.fetchrow(
                SQL["add"], identity, wanted.url, wanted.description or "", list(wanted.event_types or ()),
                customer_id, secret,
            )  # fmt: skip
            assert row is not None
            return Answer(201, f"/v1/webhook-endpoints/{identity}", encode(_endpoint(row), secret))

        return await answered_once(self._database, request, make)

    async def rotate(
        self,
        request: Request,
        identity: str,
        customer_id: str | None,
        *,
        secret: str,
        overlap_s: float,
        encode: Encode,
    ) -> Answer:
        """A new secret; the old one signs beside it for so many seconds. Raises LookupError and Refused."""

        async def make(connection: Connection) -> Answer:
            await _lock(connection, identity, customer_id)
            row = await connection.fetchrow(SQL["rotate"], identity, secret, overlap_s)
            assert row is not None
            return Answer(200, None, encode(_endpoint(row), secret))

        return await answered_once(self._database, request, make)

    async def one(self, identity: str, customer_id: str | None) -> Endpoint | None:
        """An endpoint; None when there is none that this customer may see."""
        rows = await self._database.fetch(SQL["one"], identity, customer_id)
        return _endpoint(rows[0]) if rows else None

    async def page(self, after: str, customer_id: str | None, limit: int) -> list[Endpoint]:
        """Endpoints behind the id `after`, oldest first."""
        return [_endpoint(row) for row in await self._database.fetch(SQL["page"], after, customer_id, limit)]

    async def change(self, identity: str, customer_id: str | None, wanted: Wanted) -> Endpoint | None:
        """Change what is said; what is enabled or moved begins afresh. None when there is no such one."""
        async with self._database.transaction() as connection:
            try:
                await _lock(connection, identity, customer_id)
            except LookupError:
                return None
            types = None if wanted.event_types is None else list(wanted.event_types)
            row = await connection.fetchrow(
                SQL["change"], identity, wanted.url, wanted.description, types, wanted.is_enabled
            )
            assert row is not None
            if wanted.url is not None or wanted.is_enabled:
                await connection.execute(SQL["close_breaker"], identity)
                return replace(_endpoint(row), left_alone_until=None)
            return _endpoint(row)

    async def delete(self, identity: str, customer_id: str | None) -> bool:
        """Send nothing to it any more; False when there is no such endpoint."""
        return bool(await self._database.fetch(SQL["delete"], identity, customer_id))

    async def forget_secrets(self) -> None:
        """Delete old secrets whose time is over."""
        await self._database.execute(SQL["forget_secrets"])

    async def left_alone(self) -> int:
        """How many endpoints failed again and again and are left alone."""
        return int((await self._database.fetch(SQL["open_breakers"]))[0]["count"])


async def answered_once(
    database: Database, request: Request, make: Callable[[Connection], Awaitable[Answer]]
) -> Answer:
    """The answer stored under the request's key, or the one that `make` makes, stored with what it writes.

    Raises Refused where the key was used with another body, and what `make` raises.
    """
    try:
        async with database.transaction() as connection:
            stored = await stored_answer(connection, request)
            if stored:
                return stored
            answer = await make(connection)
            if not await store_answer(connection, request, answer):
                raise OvertakenError  # noqa: TRY301 - leaving the block rolls back
            return answer
    except OvertakenError:
        async with database.connection() as connection:
            stored = await stored_answer(connection, request)
        if stored is None:  # forgotten since: nothing was done for this request
            raise Unavailable("postgres", "the answer to this key has just been forgotten") from None
        return stored


async def _lock(connection: Connection, identity: str, customer_id: str | None) -> None:
    """Raises LookupError where the customer may see no such endpoint."""
    if await connection.fetchrow(SQL["lock"], identity, customer_id) is None:
        raise LookupError(identity)


def _endpoint(row: asyncpg.Record) -> Endpoint:
    fields: Sequence[str] = Endpoint.__struct_fields__
    return Endpoint(**{name: row[name] for name in fields} | {"event_types": tuple(row["event_types"])})
