"""The marker in Redis: one key without an environment in its name, in the database that REDIS_URL chooses.

So a process of another environment sees it, though all its own keys are others. Guarantees that no key of
ours is written beside those of another environment: every new connection is asked first. A missing marker (a
flushed Redis) is written again, by whoever knows PostgreSQL's. If the process dies here, it is written or it
is not.
"""

import asyncio
from contextlib import suppress
from typing import Final

from app.contracts.streams import ENVIRONMENT_MARKER
from app.domain.errors import Unavailable
from app.hotpath.client import Client
from app.hotpath.dialing import Ask, Examine
from app.hotpath.errors import HotpathError, NotNow
from app.infra.markers import KEEP_INTERVAL_S, Markers

SERVICE: Final = "redis"


def examiner(markers: Markers) -> Examine:
    """What asks each new connection. It raises Unavailable where the connection may not be used."""

    async def examine(ask: Ask) -> None:
        found = await ask("GET", ENVIRONMENT_MARKER)
        if found is None:
            if not markers.is_sure:
                raise Unavailable(
                    SERVICE, "it has no marker, and PostgreSQL has not said yet that it is ours"
                )
            # A full or read-only server keeps it out for now: nobody else's is there, so nobody is harmed.
            with suppress(NotNow):
                found = await ask("SET", ENVIRONMENT_MARKER, markers.environment, "NX", "GET")
        if found is not None:
            markers.compare("REDIS_URL", SERVICE, found.decode("utf-8", "replace"))

    return examine


async def keep(client: Client, markers: Markers, interval_s: float = KEEP_INTERVAL_S) -> None:
    """Look at the marker now and then, on a connection that stays: keys can be flushed or evicted."""
    examine = examiner(markers)
    while True:
        await asyncio.sleep(interval_s)
        with suppress(HotpathError, Unavailable):
            await examine(lambda *parts: client.execute(*parts, safe=True))
