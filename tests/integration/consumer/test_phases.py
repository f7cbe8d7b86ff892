"""Killed at every phase of an event's way, one after the other: nothing is lost, nothing happens twice."""

import asyncio
import signal

import pytest

from tests.integration.consumer.afterwards import all_is_well
from tests.integration.consumer.processes import TELLING, Consumer, running

DOOMED = """
import os, signal, sys
from app.consumer.effect import Effect
from app.infra.postgres.event_outbox import EventOutbox
from app.infra.redis.streams import ConsumerGroup, EventStreams

def die_at(owner, name, after):
    does = getattr(owner, name)
    async def dies(*arguments, **named):
        if after:
            await does(*arguments, **named)
        os.kill(os.getpid(), signal.SIGKILL)
    setattr(owner, name, dies)

{phase}
from app.__main__ import main
sys.exit(main())
"""

PHASES = {
    "before the events reach a stream": "die_at(EventStreams, 'publish', after=False)",
    "streams have them, the outbox too": "die_at(EventOutbox, 'published', after=False)",
    "the outbox has them no more": "die_at(EventOutbox, 'published', after=True)",
    "handled, not committed": "die_at(Effect, '_handle', after=True)",
    "committed, not acknowledged": "die_at(ConsumerGroup, 'acknowledge', after=False)",
    "acknowledged": "die_at(ConsumerGroup, 'acknowledge', after=True)",
}


@pytest.mark.usefixtures("listeners")
async def test_a_kill_in_every_phase_loses_and_doubles_nothing(database_url, redis_url, orders):
    """Each process dies in another phase; the last one lives and finds all of it."""
    doomed = [
        Consumer(database_url, redis_url, ("-c", DOOMED.format(phase=phase)), **TELLING)
        for phase in PHASES.values()
    ]
    await orders.many(8)
    for consumer in doomed:
        await consumer.start()
        try:
            async with asyncio.timeout(60):
                assert await consumer.process.wait() == -signal.SIGKILL, consumer.log()
        finally:
            await consumer.close()
        await orders.many(4)
    async with running(database_url, redis_url, **TELLING):
        await all_is_well(orders, database_url)
