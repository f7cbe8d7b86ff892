"""What the image's tests share: an engine, the image, and its three modes against the real servers."""

import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from tests.acceptance.stack import Stack
from tests.image.containers import Container, Engine

MODES = ("gateway", "worker", "consumer")


@pytest.fixture(scope="session")
def engine() -> Engine:
    """The container engine of this machine; without one there is nothing to test."""
    script = Path(__file__).parents[2] / "image/engine.sh"
    return Engine(subprocess.check_output(["sh", script, "name"], text=True).strip())


@pytest.fixture(scope="session")
def image() -> str:
    """The name that `make image` gave it."""
    return os.environ.get("IMAGE", "holdfast")


@pytest.fixture(scope="session")
async def stack_without_modes(
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[tuple[Stack, dict[str, Mapping[str, str]]]]:
    """The stack's servers without its modes, and what each mode was told."""
    stack = Stack(tmp_path_factory.mktemp("image") / "data", LOG_FORMAT="json")
    await stack.up("--no-restart")
    try:
        status = await stack.status()
        told = {mode: _environment(status[mode]["pids"][0]) for mode in MODES}
        await stack.kill(*MODES)
        yield stack, told
    finally:
        await stack.down()


def _environment(pid: int) -> Mapping[str, str]:
    """The settings of a process, without what belongs to this machine."""
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    given = dict(entry.split("=", 1) for entry in entries if entry)
    ours = ("MODE", "ENVIRONMENT", "PORT", "LISTEN_HOST", "RATE_LIMIT_PER_S", "EVENT_SHARDS", "WORKER_QUEUES")
    prefixes = (
        "DATABASE_",
        "REDIS_",
        "TEMPORAL_",
        "STRIPE_",
        "CARRIER_",
        "HEALTH_",
        "LOG_",
        "SMTP_",
        "SHUTDOWN_",
    )
    return {name: value for name, value in given.items() if name in ours or name.startswith(prefixes)}


@pytest.fixture(scope="session")
async def modes(
    stack_without_modes: tuple[Stack, dict[str, Mapping[str, str]]], engine: Engine, image: str
) -> AsyncIterator[dict[str, Container]]:
    """Gateway, worker and consumer, each in a container, ready."""
    _, told = stack_without_modes
    containers = {mode: Container(engine, image, told[mode]) for mode in MODES}
    try:
        for container in containers.values():
            await container.start()
        yield containers
    finally:
        for container in containers.values():
            await container.remove()
