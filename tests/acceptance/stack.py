"""The whole stack as its users have it: `python -m app up --detach`, real processes, real kills."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

UP_TIMEOUT_S = 90.0
RECOVERY_TIMEOUT_S = 60.0


class Stack:
    """One stack in a data folder of its own."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir

    async def command(self, *arguments: str, timeout_s: float = UP_TIMEOUT_S) -> tuple[int, str]:
        """Run `holdfast` with arguments; its exit code and what it printed."""
        environ = {key: value for key, value in os.environ.items() if not key.startswith(("MODE", "REDIS_"))}
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

    async def kill(self, name: str) -> None:
        """Kill -9 one of the stack's processes."""
        part = (await self.status())[name]
        for pid in part.get("pids") or [part["pid"]]:
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
