"""Redis commands that may take their time, for tests of what is exact as long as Redis answers.

A request waits a tenth of a second for Redis and then goes on without it, as it should: the gate lets pass,
limits are counted in the process, a document is read from PostgreSQL. A busy machine needs longer at
times, so whoever counts what Redis had to say has it asked patiently.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from app.gateway import cached_orders
from app.infra.redis import clients

DEADLINE_S = 30.0


@contextmanager
def patient(deadline_s: float = DEADLINE_S) -> Iterator[None]:
    """Clients that are made within the block wait so long for an answer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clients, "REQUEST_DEADLINE_S", deadline_s)
        patch.setattr(cached_orders, "REQUEST_DEADLINE_S", deadline_s)
        yield
