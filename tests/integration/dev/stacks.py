"""How the tests drive a stack: its commands as processes, and what they may look at behind its back."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.dev.stack import ports, processes, state
from app.dev.stack.folder import DataFolder

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 90.0
SELDOM_S = 0.2
"""Between two looks that are a command each: such a process takes from those that are waited for."""


def until(condition: Callable[[], Any], timeout_s: float = 60.0, *, pause_s: float = 0.02) -> Any:
    """Wait until the condition holds, and return what it found; `pause_s` between two looks."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(pause_s)
    return found


def own_ports(folder: Path) -> None:
    """Give the stack in this folder ports of its own, as if remembered: tests run beside each other."""
    folder.mkdir(exist_ok=True)
    (folder / "ports.json").write_text(json.dumps({name: ports.any_free() for name in ports.USUAL}))


class Stack:
    """A stack in one folder, by default the servers alone, without sandbox and modes."""

    def __init__(self, path: Path, *, whole: bool = False) -> None:
        self.folder = DataFolder(path)
        self.whole = whole
        self.env = {**os.environ, "PYTHONPATH": str(ROOT)}

    def command(self, name: str, *arguments: str) -> list[str]:
        """The command line of `holdfast name`."""
        only = ["--only", "servers"] if name == "up" and not self.whole else []
        return [sys.executable, "-m", "app", name, "--data-dir", str(self.folder.path), *only, *arguments]

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `holdfast name` to its end."""
        return subprocess.run(
            self.command(name, *arguments),
            env=self.env,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def up(self, *arguments: str) -> str:
        """`holdfast up --detach`, which must succeed; what it said."""
        done = self.run("up", "--detach", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def foreground(self, *arguments: str) -> "subprocess.Popen[str]":
        """`holdfast up`, as it stands after it said that it is ready."""
        process = subprocess.Popen(
            self.command("up", *arguments),
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        said = ""
        while "Redis " not in said:  # the summary's first lines
            line = process.stdout.readline()
            assert line, said
            said += line
        return process

    def status(self) -> dict[str, Any]:
        """`holdfast status --json`; its exit code must agree."""
        done = self.run("status", "--json")
        found: dict[str, Any] = json.loads(done.stdout)
        assert (done.returncode == 0) == (found["state"] == "ready")
        return found

    def supervisor(self) -> int:
        """Its pid."""
        written = state.load(self.folder.state_file)
        assert written is not None
        return written.supervisor.pid

    def guard(self) -> int | None:
        """The guard's pid, when there is one: the process that holds our lock and is not the supervisor."""
        for path in Path("/proc").iterdir():
            if path.name.isdigit():
                try:
                    line = (path / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"app.dev.stack.guard" in line and str(self.folder.path).encode() in line:
                    return int(path.name) if processes.identify(int(path.name)) else None
        return None

    def kill(self, pid: int | None) -> None:
        """Kill -9, and wait until it is gone."""
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        until(lambda: processes.identify(pid) is None)

    def living(self) -> list[str]:
        """The names of the stack's processes that run, whoever started them."""
        return sorted({one.name for one in processes.tagged(self.folder.path)})


def pids(found: dict[str, Any]) -> dict[str, int]:
    """The servers' pids in a status."""
    return {name: found[name]["pid"] for name in ("postgres", "redis", "temporal")}
