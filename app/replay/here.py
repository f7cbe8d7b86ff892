"""A replay carried to its end by whoever asks for it, for tests and for checks: no worker is waited for.

A worker that takes it up, too, does no harm. If the process dies here, a worker goes on with it.
"""

from typing import Final

from app.infra.postgres.pool import Database
from app.infra.postgres.replays import Asked, PostgresReplays, Replay
from app.replay.asking import ask
from app.replay.engine import Engine
from app.replay.registry import handlers

DEADLINE_S: Final = 600.0


async def carried_here(database: Database, asked: Asked) -> Replay:
    """Ask for a replay and carry it on, at most for ten minutes; how it is then.

    Of a projection its `summary` has `rows`, `changes` (how many differ), `live_hash` and `rebuilt_hash`:
    equal hashes are a projection that is what a rebuild from the first event would be. Raises Refused and
    Unavailable.
    """
    known = handlers()
    async with database.transaction() as connection:
        replay = await ask(connection, asked, known)
    await Engine(database, known).carry(replay.id, seconds=DEADLINE_S)
    return await PostgresReplays(database).one(replay.id) or replay
