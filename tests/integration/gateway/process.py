"""The gateway as a process of its own, as operators run it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from tests.integration.gateway.served import KEY, SECRET, listening

ROOT = Path(__file__).resolve().parents[3]


class GatewayProcess:
    """A running gateway."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, log: Path, client: httpx.AsyncClient):
        self.process = process
        self.port = port
        self.log = log
        self.client = client

    @property
    def resident_mb(self) -> float:
        """Memory that it holds."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1024**2

    @property
    def cpu_s(self) -> float:
        """Processor time that it has used."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            return await self.process.wait()


async def start(port: int, database_url: str, redis_url: str, log: Path, **more: str):
    """Start the process; it may not be ready yet."""
    environment = {
        "PATH": os.environ["PATH"],
        "MODE": "gateway",
        "ENVIRONMENT": "test",
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "CARRIER_WEBHOOK_SECRET": SECRET,
        "PORT": str(port),
        **more,
    }
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app"), env=environment, cwd=ROOT, stdout=output, stderr=output
        )


@asynccontextmanager
async def running(
    port: int, database_url: str, redis_url: str, folder: Path, **more: str
) -> AsyncIterator[GatewayProcess]:
    """A gateway process that listens; killed at the end if it still runs."""
    log = folder / f"gateway-{port}.log"
    process = await start(port, database_url, redis_url, log, **more)
    headers = {"Authorization": f"Bearer {KEY}"}
    try:
        await listening(port)
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=30) as client:
            yield GatewayProcess(process, port, log, client)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
