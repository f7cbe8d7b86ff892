"""The image as its users have it: containers on this machine's network, with nothing writable."""

import asyncio
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

COMMAND_TIMEOUT_S = 120.0
LABEL = "io.holdfast.test"
"""On every container that the tests start, so that none is left."""


class Engine:
    """Docker or Podman, by its command line."""

    def __init__(self, command: str) -> None:
        self.command = command

    async def run(self, *arguments: str, check: bool = True) -> tuple[int, str]:
        """Run one command of the engine; its exit code and all that it printed."""
        process = await asyncio.create_subprocess_exec(
            self.command,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            output, _ = await process.communicate()
        said = output.decode(errors="replace")
        assert not check or process.returncode == 0, f"{shlex.join(arguments)}:\n{said}"
        return process.returncode or 0, said

    async def once(self, image: str, *arguments: str, **settings: str) -> tuple[int, str]:
        """Run the image to its end, read-only and without a network."""
        told = [part for name, value in settings.items() for part in ("--env", f"{name}={value}")]
        return await self.run(
            *("run", "--rm", "--read-only", "--network", "none"), *told, image, *arguments, check=False
        )

    async def shell(self, image: str, script: str) -> str:
        """What a shell in the image says to a script."""
        _, said = await self.run(
            *("run", "--rm", "--network", "none", "--entrypoint", "sh"), image, "-ec", script
        )
        return said

    async def inspect(self, what: str) -> dict[str, Any]:
        """What the engine knows of an image or a container."""
        _, said = await self.run("inspect", what)
        return json.loads(said)[0]  # type: ignore[no-any-return]


class Container:
    """One mode of the program."""

    def __init__(self, engine: Engine, image: str, settings: Mapping[str, str]) -> None:
        self.engine = engine
        self.image = image
        self.settings = settings
        self.id = ""

    async def start(self) -> None:
        """Start it anew, and wait until it says that it is ready."""
        told = [part for name, value in self.settings.items() for part in ("--env", f"{name}={value}")]
        flags = ("--detach", "--read-only", "--network", "host", "--cap-drop", "ALL", "--label", LABEL)
        flags += ("--security-opt", "no-new-privileges")
        _, said = await self.engine.run("run", *flags, *told, self.image)
        self.id = said.split()[-1]
        async with asyncio.timeout(COMMAND_TIMEOUT_S):
            while (await self.execute("holdfast", "health", check=False))[0]:
                assert await self.is_running(), await self.logs()
                await asyncio.sleep(0.1)

    async def execute(self, *command: str, check: bool = True) -> tuple[int, str]:
        """Run a command inside; its exit code and what it printed."""
        return await self.engine.run("exec", self.id, *command, check=check)

    async def is_running(self) -> bool:
        """Whether its first process has not ended."""
        return bool((await self.engine.inspect(self.id))["State"]["Running"])

    async def stop(self, grace_s: int = 40) -> int:
        """SIGTERM, and SIGKILL after the grace period; the exit code (137: it had to be killed)."""
        await self.engine.run("stop", "--time", str(grace_s), self.id)
        return int((await self.engine.inspect(self.id))["State"]["ExitCode"])

    async def logs(self) -> str:
        """What it has written."""
        return (await self.engine.run("logs", self.id, check=False))[1]

    async def remove(self) -> None:
        """Leave nothing of it."""
        if self.id:
            await self.engine.run("rm", "--force", self.id)


def listed(said: str) -> Sequence[str]:
    """The lines of an answer."""
    return [line for line in said.splitlines() if line]
