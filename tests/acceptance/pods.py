"""Processes that stand in for pods: started as a Deployment does, taken away as a rollout does."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from app.dev.stack import ports
from tests.acceptance.balancer import Balancer

MODES = ("gateway", "worker", "consumer")
PRE_STOP_S = 0.5
"""What the manifests' preStop is on a cluster: the time for everybody to hear that a pod is going."""
_START_TIMEOUT_S = 90.0
_STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Pod:
    """A running mode."""

    name: str
    mode: str
    port: int
    process: asyncio.subprocess.Process
    log: Path

    async def until_ready(self) -> None:
        """Wait until its readiness says so."""
        async with asyncio.timeout(_START_TIMEOUT_S), httpx.AsyncClient() as http:
            while True:
                assert self.process.returncode is None, self.end_of_log()
                with contextlib.suppress(httpx.HTTPError):
                    if (await http.get(f"http://127.0.0.1:{self.port}/readyz")).status_code == 200:
                        return
                await asyncio.sleep(0.05)

    async def stop(self) -> int:
        """SIGTERM; its exit code."""
        self.process.terminate()
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            return await self.process.wait()

    def end_of_log(self) -> str:
        """For a failing test to show."""
        return f"== {self.name}\n" + self.log.read_text(errors="replace")[-3000:]


class Pods:
    """Starts pods on the servers of a stack, told as the stack's own modes are."""

    def __init__(self, status: dict[str, Any], folder: Path) -> None:
        self._folder = folder
        self._environs = {mode: _environ_of(status[mode]["pids"][0]) for mode in MODES}
        self.all: list[Pod] = []

    async def start(self, name: str, mode: str, **settings: str) -> Pod:
        """A new pod, ready."""
        port, log = ports.any_free(), self._folder / f"{name}.log"
        own = {"PORT" if mode == "gateway" else "HEALTH_PORT": str(port)}
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "app"),
                env=self._environs[mode] | own | settings,
                stdout=output,
                stderr=output,
            )
        pod = Pod(name, mode, port, process, log)
        self.all.append(pod)
        await pod.until_ready()
        return pod

    async def replace(self, old: Pod, name: str, balancer: Balancer | None = None, **settings: str) -> Pod:
        """Roll one pod: new before old, out of the balancer, preStop, SIGTERM. It has to end in order."""
        new = await self.start(name, old.mode, **settings)
        if balancer is not None:
            balancer.add(new.port)
            await balancer.until_ready(new.port)
            balancer.remove(old.port)
        print(f"{old.name} → {name}")
        await asyncio.sleep(PRE_STOP_S)
        assert await old.stop() == 0, old.end_of_log()
        return new

    async def kill(self) -> None:
        """End what still runs, without ceremony."""
        for pod in self.all:
            if pod.process.returncode is None:
                pod.process.kill()
                await pod.process.wait()


def _environ_of(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


@asynccontextmanager
async def pods(status: dict[str, Any], folder: Path) -> AsyncIterator[Pods]:
    """Pods, until the end of the block."""
    made = Pods(status, folder)
    try:
        yield made
    finally:
        await made.kill()
