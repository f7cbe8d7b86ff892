"""Time for whatever has to be answered: a busy machine needs more of it than production gives.

A request waits a tenth of a second for Redis and then goes on without it: the gate lets pass, limits are
counted in the process. It waits a few seconds for PostgreSQL and is then refused with 503. Both are right,
and both happen on a machine that has other things to do. So whoever looks at anything else has it asked
patiently; tests of these very deadlines are `hasty`.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.gateway import (
    analytics,
    auth,
    cached_orders,
    carrier,
    customers,
    dead_letters,
    inventory,
    live_routes,
    order_reads,
    orders,
    products,
    replays,
    webhook_endpoints,
)
from app.gateway.deadlines import Patience
from app.infra.postgres import combiner, pool
from app.infra.redis import clients, gate

DEADLINE_S = 30.0

_REDIS = [(clients, "REQUEST_DEADLINE_S"), (cached_orders, "REQUEST_DEADLINE_S")]
_REQUESTS = [
    *(
        (module, "DEADLINE_S")
        for module in (analytics, carrier, customers, dead_letters, inventory, products)
    ),
    *((module, "DEADLINE_S") for module in (replays, webhook_endpoints)),
    *((auth, "FIRST_LOOK_S"), (auth, "SECOND_LOOK_S")),
    *((cached_orders, "READ_DEADLINE_S"), (order_reads, "READ_DEADLINE_S")),
    *((live_routes, "OPEN_DEADLINE_S"), (orders, "WRITE_DEADLINE_S")),
    *((pool, "ACQUIRE_TIMEOUT_S"), (pool, "CONNECT_TIMEOUT_S"), (combiner, "WAIT_MAX_S")),
    (gate, "CHANGED_WITHIN_S"),
]
_PLACING = (orders, "_patience")
_PRODUCTION = [(owner, name, getattr(owner, name)) for owner, name in [*_REDIS, *_REQUESTS, _PLACING]]


@contextmanager
def patient() -> Iterator[None]:
    """Clients of Redis that are made within the block wait for its answers; so do requests within it."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in [*_REDIS, *_REQUESTS]:
            patch.setattr(owner, name, DEADLINE_S)
        patch.setattr(*_PLACING, Patience(DEADLINE_S))  # one of its own: it has one timer for all who wait
        yield


@contextmanager
def hasty() -> Iterator[None]:
    """Within the block, everything has the deadline that it has in production."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, name, value in _PRODUCTION:
            patch.setattr(owner, name, value)
        yield
