"""Asking for a replay: what is refused before anything is read. If the process dies here, nobody asked."""

import os
import time
from collections.abc import Mapping
from typing import Final

from app.domain.errors import Fault, Refusal, Refused
from app.domain.ids import ORDER_ID, replay_id
from app.domain.place import INVALID
from app.domain.upcasters import VERSIONS
from app.infra.postgres import replays
from app.infra.postgres.pool import Connection
from app.infra.postgres.replays import Asked, Replay
from app.replay.handlers import Handler

RATE_MAX: Final = 10_000_000


def refused(pointer: str, detail: str) -> Refused:
    """What is asked makes no sense: `pointer` is the field in the body of `POST /v1/replays`."""
    return Refused(Refusal(INVALID, detail, (Fault(pointer, detail),)))


def check(asked: Asked, handlers: Mapping[str, Handler]) -> None:
    """Raise Refused where no such replay can be."""
    handler = handlers.get(asked.handler)
    if handler is None:
        raise refused("/handler", f"There is no handler {asked.handler}; there are {', '.join(handlers)}.")
    wanted = asked.selection
    if wanted.since and wanted.until and wanted.since >= wanted.until:
        raise refused("/to", "It has to be later than `from`.")
    if wanted.type is not None and wanted.type not in VERSIONS.types:
        raise refused("/type", f"There is no event of type {wanted.type}.")
    if wanted.order_id is not None and not ORDER_ID.match(wanted.order_id):
        raise refused("/order", "It has to be an order's id, like ord_06dzpv7x2m8wq3k9n5t1r4c7j0.")
    if asked.rate_per_s is not None and not 1 <= asked.rate_per_s <= RATE_MAX:
        raise refused("/rate", f"It has to be from 1 to {RATE_MAX} events a second.")
    handler.check(asked)


async def ask(connection: Connection, asked: Asked, handlers: Mapping[str, Handler]) -> Replay:
    """Put a replay on record, in the caller's transaction; a worker takes it up. Raises Refused."""
    check(asked, handlers)
    identity = replay_id(time.time_ns() // 1_000_000, os.urandom(10))
    return await replays.insert(connection, identity, asked)
