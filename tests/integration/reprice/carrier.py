"""Processes that carry a replay on, to be killed: `python -m tests.integration.reprice.carrier DSN ID`."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import uvloop

from app.infra.postgres.pool import Database
from app.infra.postgres.replays import Replay
from app.replay.engine import Engine
from app.replay.reprice import Reprice
from tests.integration.reprice.priced import Past

ORDERS_AT_ONCE = 25
CHANGES_AT_ONCE = 10


async def killed_when(past: Past, replay_id: str, is_reached: Callable[[Replay], bool]) -> Replay:
    """Have a process carry a replay on, and kill it when it has come so far; where it stands then."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.integration.reprice.carrier", past.url, replay_id,
        cwd=Path(__file__).parents[3], env=os.environ | {"PYTHONPATH": "."},
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            while not is_reached(await past.replay(replay_id)):
                assert process.returncode is None
                await asyncio.sleep(0.002)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()
    return await past.replay(replay_id)


async def _carry(dsn: str, replay_id: str) -> None:
    database = await Database(dsn, size=2, name="carrier").open()
    handler = Reprice()
    handler.changes_at_once = CHANGES_AT_ONCE  # type: ignore[misc]
    engine = Engine(database, {"reprice": handler}, batch_events=ORDERS_AT_ONCE)
    while not (await engine.carry(replay_id, seconds=1)).is_over:
        pass
    await database.close()


if __name__ == "__main__":
    uvloop.run(_carry(*sys.argv[1:]))
