"""Containers that tests start for themselves do not outlive them."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from tests.image.containers import Engine, listed
from tests.stack_reaper import OWNER

pytestmark = [pytest.mark.image, pytest.mark.timeout(300)]

TESTS = """
import asyncio, sys
from tests.stack_containers import Containers

async def main():
    async with Containers() as containers:
        await containers._run(sys.argv[1], 1, ["--help"])
        print(containers.owner, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
async def test_a_test_process_that_is_ended_leaves_no_container(
    engine: Engine, image: str, how: signal.Signals
):
    """Somebody waits for its end, and that is not in its group."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", TESTS, image),
        cwd=Path(__file__).parents[2],
        env=os.environ | {"HOLDFAST_TEST_CONTAINER_NETWORK": "host"},
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    owner = (await process.stdout.readline()).decode().strip()

    async def theirs() -> list[str]:
        _, said = await engine.run("ps", "--all", "--quiet", "--filter", f"label={OWNER}={owner}")
        return list(listed(said))

    assert len(await theirs()) == 1
    os.killpg(process.pid, how)
    await process.wait()
    async with asyncio.timeout(60):
        while await theirs():
            await asyncio.sleep(0.2)
