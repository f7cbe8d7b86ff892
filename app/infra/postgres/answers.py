"""Answers to idempotency keys: what was answered once is answered again, byte for byte.

An answer is stored in the transaction of what it answers, so if the process dies here, either both are there
or neither is, and the caller who asks again with the key finds out which.
"""

from collections.abc import Iterable
from typing import Final, TypeAlias

import asyncpg
import msgspec

from app.domain.errors import Refusal, Refused
from app.infra.postgres.pool import Connection
from app.infra.postgres.statements import statements

SQL: Final = statements("answers")
KEY_REUSED: Final = "idempotency-key-reused"

Key: TypeAlias = tuple[str, str, str]
"""What an answer is stored under: caller, route, and the caller's key."""


class Request(msgspec.Struct, frozen=True):
    """Who asks what under which key: `route` is method and path, `body_hash` the SHA-256 of the body."""

    caller: str
    route: str
    key: str
    body_hash: bytes

    @property
    def stored_under(self) -> Key:
        """The key of its answer."""
        return self.caller, self.route, self.key


class Answer(msgspec.Struct, frozen=True):
    """What was answered to a key, byte for byte; `replayed` when it was stored by an earlier request."""

    status: int
    location: str | None
    body: bytes
    replayed: bool = False


class StoredAnswer(msgspec.Struct, frozen=True):
    """An answer and the SHA-256 of the body that it was given to."""

    body_hash: bytes
    answer: Answer

    def to(self, request: Request) -> Answer | Refused:
        """The answer again, or the refusal where the key belonged to another body."""
        if self.body_hash != request.body_hash:
            return Refused(Refusal(KEY_REUSED, "This Idempotency-Key was used with another request body."))
        return self.answer


def key_from(row: asyncpg.Record) -> Key:
    """The key of a row."""
    return row["caller"], row["route"], row["key"]


def stored_from(row: asyncpg.Record) -> StoredAnswer:
    """The answer that a row holds."""
    answer = Answer(row["status"], row["location"], row["answer"], replayed=True)
    return StoredAnswer(row["body_hash"], answer)


async def stored_answers(connection: Connection, keys: Iterable[Key]) -> dict[Key, StoredAnswer]:
    """Those of some keys that have an answer."""
    rows = await connection.fetch(SQL["answers"], *zip(*keys, strict=True))
    return {key_from(row): stored_from(row) for row in rows}


async def stored_answer(connection: Connection, request: Request) -> Answer | None:
    """The answer stored under the request's key. Raises Refused when it belonged to another body."""
    stored = (await stored_answers(connection, (request.stored_under,))).get(request.stored_under)
    answer = None if stored is None else stored.to(request)
    if isinstance(answer, Refused):
        raise answer
    return answer


async def store_answer(connection: Connection, request: Request, answer: Answer) -> bool:
    """Store an answer in the caller's transaction; False when a request running beside it was first."""
    row = await connection.fetchval(
        SQL["store_answer"],
        request.caller,
        request.route,
        request.key,
        request.body_hash,
        answer.status,
        answer.location,
        answer.body,
    )
    return bool(row)
