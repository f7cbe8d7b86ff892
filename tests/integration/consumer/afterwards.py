"""What must be true after a bad day, whatever it was."""

import asyncpg

from app.consumer.notifications import KINDS
from app.domain.events import TYPES
from app.infra.postgres import replays
from app.infra.postgres.audit import Findings, verify
from app.infra.postgres.dead_letters import WAITING, DeadLetters
from app.infra.postgres.replays import Asked
from app.projections.rebuilt import REBUILT
from app.replay.asking import ask
from app.replay.engine import Engine
from app.replay.registry import handlers
from tests.integration.consumer.orders import Orders

DELIVERIES = """
WITH happened AS (
    SELECT w.id AS endpoint_id, e.subject, e.sequence FROM events e, webhook_endpoints w
    WHERE e.type = ANY ($1)
), written AS (SELECT endpoint_id, subject, sequence FROM webhook_deliveries)
(TABLE happened EXCEPT ALL TABLE written) UNION ALL (TABLE written EXCEPT ALL TABLE happened)
"""
"""Events that an endpoint of all of them was not to be sent, or twice."""

FORGOTTEN = "SELECT id FROM webhook_deliveries WHERE NOT (waits AND state = 'pending')"
"""Deliveries that wait for no turn, although no worker has begun any."""

MAILS = """
WITH happened AS (
    SELECT subject, split_part(type, '.', 2) AS kind FROM events WHERE type = ANY ($1)
), written AS (SELECT order_id, kind FROM mails)
(TABLE happened EXCEPT ALL TABLE written) UNION ALL (TABLE written EXCEPT ALL TABLE happened)
"""
"""What customers were not to be told, or twice."""


async def all_is_well(orders: Orders, dsn: str, *, timeout_s: float = 30) -> None:
    """Every event had its effect in every group once, no letter waits, chains hold, a rebuild is the same."""
    await orders.all_caught_up(timeout_s=timeout_s)
    await everybody_is_told(orders)
    assert await DeadLetters(orders.database).page(0, 10, states=WAITING) == []
    await chains_hold(dsn)
    await projections_equal_a_rebuild(orders)


async def everybody_is_told(orders: Orders) -> None:
    """A delivery of each event to each endpoint waits, a mail of each step of each order: once."""
    assert await orders.database.fetch(DELIVERIES, list(TYPES.values())) == []
    assert await orders.database.fetch(FORGOTTEN) == []
    assert await orders.database.fetch(MAILS, list(KINDS) if orders.email else []) == []


async def chains_hold(dsn: str) -> None:
    """Every event is hashed anew and follows the one before it."""
    connection = await asyncpg.connect(dsn)
    findings = Findings(quiet=True)
    try:
        verdicts = [verdict async for verdict in verify(connection, findings)]
    finally:
        await connection.close()
    assert verdicts[-1].events
    assert verdicts[-1].is_whole, findings.found


async def projections_equal_a_rebuild(orders: Orders) -> None:
    """Each of them, built anew from all events, has the same hash."""
    known = handlers()
    engine = Engine(orders.database, known)
    for projection in REBUILT:
        async with orders.database.transaction() as connection:
            replay = await ask(connection, Asked(handler=projection.name), known)
        progress = await engine.carry(replay.id, seconds=30)
        assert progress.state == replays.SHOWN, progress
        (row,) = await orders.database.fetch(replays.SQL["one"], replay.id)
        shown = replays.replay_of(row).summary
        assert shown["live_hash"] == shown["rebuilt_hash"], (projection.name, shown)
        assert progress.changes == 0
