"""The Redis that tests run against: the embedded Valkey, or the server whose path HOLDFAST_TEST_REDIS is."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

from app.dev.servers import EmbeddedValkey


def redis_in(place: Path, port: int = 0, *, settings: Mapping[str, str] | None = None) -> EmbeddedValkey:
    """A server that keeps nothing on disk and dies with this process, not started yet."""
    given = os.environ.get("HOLDFAST_TEST_REDIS")
    return EmbeddedValkey(
        place,
        port,
        durable=False,
        follow=signal.SIGKILL,
        binary=Path(given).absolute() if given else None,  # it runs in another folder
        settings=settings,
    )
