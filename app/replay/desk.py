"""`Desk`: where replays are asked for, decided on and looked at by others than the command.

Asking is one transaction with the answer to the caller's idempotency key: if the process dies here, either
both are there or neither is.
"""

from collections.abc import Awaitable, Callable

from app.domain.errors import Unavailable
from app.infra.postgres import replays
from app.infra.postgres.answers import Answer, Request, store_answer, stored_answer
from app.infra.postgres.intake import OvertakenError
from app.infra.postgres.pool import Connection, Database
from app.infra.postgres.replays import Asked, PostgresReplays, Replay
from app.replay.asking import ask
from app.replay.registry import handlers


class Desk:
    """Replays, for people. Every method raises Unavailable; `seen` only reads; `names` are the handlers'."""

    def __init__(self, database: Database) -> None:
        """Work on this database."""
        self._database = database
        self._handlers = handlers()
        self.names = tuple(self._handlers)
        self.seen = PostgresReplays(database)

    async def ask(self, request: Request, asked: Asked, encode: Callable[[Replay], bytes]) -> Answer:
        """Put a replay on record. A key that is taken gives its stored answer. Raises Refused."""
        try:
            async with self._database.transaction() as connection:
                stored = await stored_answer(connection, request)
                if stored:
                    return stored
                replay = await ask(connection, asked, self._handlers)
                answer = Answer(202, f"/v1/replays/{replay.id}", encode(replay))
                if not await store_answer(connection, request, answer):
                    raise OvertakenError  # noqa: TRY301 - leaving the block rolls back
                return answer
        except OvertakenError:
            async with self._database.connection() as connection:
                stored = await stored_answer(connection, request)
            if stored is None:  # forgotten since: nothing was done for this request
                raise Unavailable("postgres", "the answer to this key has just been forgotten") from None
            return stored

    async def apply(self, replay_id: str) -> Replay:
        """Have what was shown applied. Raises LookupError, Refused."""
        return await self._decide(replays.ask_to_apply, replay_id)

    async def cancel(self, replay_id: str) -> Replay:
        """Stop a replay. Raises LookupError, Refused."""
        return await self._decide(replays.cancel, replay_id)

    async def _decide(self, decide: Callable[[Connection, str], Awaitable[Replay]], replay_id: str) -> Replay:
        async with self._database.transaction() as connection:
            return await decide(connection, replay_id)
