"""The whole stack as its users have it: `python -m app up --detach`, real processes, real kills."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from app.dev.stack import ports

UP_TIMEOUT_S = 90.0
RECOVERY_TIMEOUT_S = 60.0
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 15.0


class Stack:
    """One stack in a data folder of its own; `settings` are given to its modes."""

    def __init__(self, data_dir: Path, **settings: str) -> None:
        self.data_dir = data_dir
        self.settings = settings

    async def command(self, *arguments: str, timeout_s: float = UP_TIMEOUT_S) -> tuple[int, str]:
        """Run `holdfast` with arguments; its exit code and what it printed."""
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("MODE", "REDIS_"))}
        environ |= self.settings
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "app",
            *arguments,
            "--data-dir",
            str(self.data_dir),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environ,
        )
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
        return process.returncode or 0, output.decode()

    async def up(self, *arguments: str) -> None:
        """Start it and wait until it is ready."""
        code, output = await self.command("up", "--detach", *arguments)
        assert code == 0, output + self.logs()

    async def down(self) -> None:
        """Stop it in order."""
        code, output = await self.command("down")
        assert code == 0, output

    async def status(self) -> dict[str, Any]:
        """What `holdfast status --json` says."""
        _, output = await self.command("status", "--json")
        return json.loads(output)  # type: ignore[no-any-return]

    async def kill(self, *names: str) -> None:
        """Kill -9 some of the stack's processes."""
        status = await self.status()
        for name in names:
            for pid in status[name].get("pids") or [status[name]["pid"]]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    async def until_ready(self) -> dict[str, Any]:
        """Wait until everything answers again, without help."""
        async with asyncio.timeout(RECOVERY_TIMEOUT_S):
            while (status := await self.status())["state"] != "ready":
                await asyncio.sleep(0.2)
        return status

    def logs(self) -> str:
        """The ends of all logs, for a failing test to show."""
        files = sorted(self.data_dir.glob("logs/*.log"))
        return "\n".join(f"== {f.name}\n{f.read_text(errors='replace')[-3000:]}" for f in files)


@asynccontextmanager
async def another_gateway(status: dict[str, Any], log: Path, **settings: str) -> AsyncIterator[str]:
    """One more gateway beside that of a stack, told the same but for `settings`; its URL when it is ready."""
    with Path(f"/proc/{status['gateway']['pids'][0]}/environ").open("rb") as file:
        told = (entry.decode().split("=", 1) for entry in file.read().split(b"\0") if entry)
        environ = dict(told) | {"PORT": str(ports.any_free())} | settings
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "app"), env=environ, stdout=output, stderr=output
        )
    url = f"http://127.0.0.1:{environ['PORT']}"
    try:
        async with asyncio.timeout(_START_TIMEOUT_S), httpx.AsyncClient() as http:
            while not await _is_ready(http, url):
                assert process.returncode is None, log.read_text(errors="replace")[-3000:]
                await asyncio.sleep(0.05)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


async def _is_ready(http: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await http.get(f"{url}/readyz")).status_code == 200
    except httpx.TransportError:
        return False
