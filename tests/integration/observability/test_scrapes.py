"""A scrape while every server is dead: it answers at once, says so, and claims nothing else."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from app.dev.stack import ports
from tests.metrics_table import MODES, parsed, value

ROOT = Path(__file__).resolve().parents[3]
START_TIMEOUT_S = 60
SCRAPE_TIMEOUT_S = 30


@asynccontextmanager
async def process(mode: str, dead: int) -> AsyncIterator[str]:
    """A mode all of whose servers are at a port where nobody answers; its URL."""
    port = str(ports.any_free())
    environment = {
        "PATH": os.defpath,
        "PYTHONPATH": str(ROOT),
        "MODE": mode,
        "ENVIRONMENT": "dev",
        "DATABASE_URL": f"postgresql://nobody@127.0.0.1:{dead}/none",
        "REDIS_URL": f"redis://127.0.0.1:{dead}/0",
        "TEMPORAL_ADDRESS": f"127.0.0.1:{dead}",
        "TEMPORAL_NAMESPACE": "holdfast-dev",
        "STRIPE_API_KEY": "sk_test_none",
        "CARRIER_URL": f"http://127.0.0.1:{dead}",
        "CARRIER_WEBHOOK_SECRET": "some-secret",
        "LISTEN_HOST": "127.0.0.1",
        "PORT": port,
        "HEALTH_PORT": port,
        "SHUTDOWN_TIMEOUT_S": "5",
    }
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app"), env=environment, cwd=ROOT, stderr=asyncio.subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with asyncio.timeout(START_TIMEOUT_S), httpx.AsyncClient() as http:
            while True:
                assert running.returncode is None
                try:
                    if (await http.get(f"{url}/livez")).status_code == 200:
                        break
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
        yield url
    finally:
        running.kill()
        await running.wait()


@pytest.fixture(scope="module")
async def urls() -> AsyncIterator[dict[str, list[str]]]:
    """One process of each mode, but two workers, whose servers take connections and say nothing."""
    async with AsyncExitStack() as stack:
        silent = await asyncio.start_server(lambda _, writer: asyncio.sleep(3600), "127.0.0.1", 0)
        stack.callback(silent.close)
        dead = silent.sockets[0].getsockname()[1]
        starting = [(mode, process(mode, dead)) for mode in (*MODES, "worker")]
        entered = await asyncio.gather(*(stack.enter_async_context(one) for _, one in starting))
        found: dict[str, list[str]] = {}
        for (mode, _), url in zip(starting, entered, strict=True):
            found.setdefault(mode, []).append(url)
        yield found


async def scrape(url: str) -> str:
    """What it serves."""
    async with httpx.AsyncClient(timeout=SCRAPE_TIMEOUT_S) as http:
        answer = await http.get(f"{url}/metrics")
    assert answer.status_code == 200
    return answer.text


@pytest.mark.parametrize("name", ["holdfast_redis_up", "holdfast_postgres_up"])
@pytest.mark.parametrize("mode", MODES)
async def test_who_is_away_is_said_to_be(urls, mode, name):
    """By a zero, not by an answer that does not come."""
    assert value(parsed(await scrape(urls[mode][0])), name) == 0


async def test_temporal_is_said_to_be_away(urls):
    """By the worker, whose only server it is that nobody else asks."""
    assert value(parsed(await scrape(urls["worker"][0])), "holdfast_temporal_up") == 0


@pytest.mark.parametrize("mode", MODES)
async def test_a_scrape_waits_for_no_server(urls, mode):
    """The quickest of a few (this machine may be busy) takes less than any attempt to ask one would."""
    times = []
    async with httpx.AsyncClient(timeout=SCRAPE_TIMEOUT_S) as http:
        for _ in range(5):
            started = time.monotonic()
            await http.get(f"{urls[mode][0]}/metrics")
            times.append(time.monotonic() - started)
    assert min(times) < 1


@pytest.mark.parametrize(
    "name",
    [
        "holdfast_open_orders",
        "holdfast_outbox_age_seconds",
        "holdfast_stream_lag",
        "holdfast_dlq_events",
        "holdfast_redis_memory_ratio",
    ],
)
async def test_what_nobody_could_measure_is_not_served(urls, name):
    """A zero would say that all is well."""
    family = parsed(await scrape(urls["consumer"][0])).get(name)
    assert family is None or family.samples == []


@pytest.mark.parametrize("which", [0, 1])
async def test_two_workers_of_one_machine_both_serve_temporals_metrics(urls, which):
    """Their exporters have ports of their own."""
    assert value(parsed(await scrape(urls["worker"][which])), "holdfast_temporal_metrics_up") == 1
