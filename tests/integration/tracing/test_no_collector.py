"""An order needs no collector: one that is not there, or does not answer, costs spans and nothing else."""

import time
from pathlib import Path

import pytest

from tests.integration.tracing.shop import MODES, SHUTDOWN_TIMEOUT_S, open_shop
from tests.otlp import Collector
from tests.stack import Temporal

SLACK_S = 20.0
"""What a busy machine may add."""


@pytest.mark.full
@pytest.mark.timeout(400)
@pytest.mark.parametrize("trouble", ["dead", "hanging"])
async def test_an_order_is_carried_and_the_modes_end_in_time(
    tmp_path: Path, database_url: str, redis_url: str, temporal_server: Temporal, trouble: str
):
    """In order, as if nobody wanted traces; it is said at most once that they are lost."""
    with Collector() as collector:
        collector.status = None
        endpoint = collector.url if trouble == "hanging" else "http://127.0.0.1:1"
        told = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        async with open_shop(tmp_path, database_url, redis_url, temporal_server, **told) as shop:
            for _ in range(3):
                assert (await shop.order())["payment"]["status"] == "captured"
            began = time.monotonic()
            assert await shop.stop() == dict.fromkeys(MODES, 0)
            assert time.monotonic() - began < SHUTDOWN_TIMEOUT_S + SLACK_S
            assert all(shop.log(mode).count("traces_are_lost") <= 1 for mode in MODES)
