"""Owns the processes of this program that a benchmark measures, started exactly as `holdfast up` starts them.

Guarantees: a mode is ready when it is yielded, logs into the benchmark's folder, and ends with the benchmark
or with this process, whichever is first. Nothing about it is made faster for being measured: arguments and
environment are those of the development stack.
"""

import secrets
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from app.dev.stack.folder import DataFolder
from app.dev.stack.modes import Plan
from app.dev.stack.ports import any_free
from app.dev.stack.service import Service, Spec
from bench.harness import Setting
from bench.processor import CPUS, pinned


@dataclass(frozen=True, slots=True)
class Modes:
    """The plan of one stack whose servers run already: addresses, secrets, and how its modes are started."""

    setting: Setting
    plan: Plan
    dsn: str

    @property
    def api_key(self) -> str:
        """The key that opens the gateway, once somebody has put it in place."""
        return self.plan.secrets.api_key

    def port(self, name: str) -> int:
        """Where a mode listens."""
        return self.plan.ports[name]

    @asynccontextmanager
    async def running(self, name: str, *, cpus: Sequence[int] = CPUS) -> AsyncIterator[int]:
        """A mode, or the sandbox, ready; its pid."""
        spec = self.plan.sandbox() if name == "sandbox" else self.plan.mode(name, self.dsn)
        spec = replace(spec, env={**spec.env, "LOG_FORMAT": "json"})  # as in production
        async with process(self.setting, spec, cpus=cpus) as pid:
            yield pid


def modes(
    setting: Setting, *, dsn: str, redis_port: int, temporal_port: int = 0, folder: str = "stack"
) -> Modes:
    """The modes of a stack with these servers, its files in a folder of that name."""
    files = DataFolder(setting.folder / folder)
    files.create()
    files.place("sandbox").mkdir(exist_ok=True)
    names = ("gateway", "worker", "consumer", "sandbox")
    ports = {name: any_free() for name in (*names, "smtp")}
    ports |= {"redis": redis_port, "temporal": temporal_port or any_free()}
    return Modes(setting, Plan(files, f"bench-{secrets.token_hex(4)}", ports, files.secrets()), dsn)


@asynccontextmanager
async def process(setting: Setting, spec: Spec, *, cpus: Sequence[int] = CPUS) -> AsyncIterator[int]:
    """A process of `spec`, ready, its log among the benchmark's; its pid."""
    service = Service(replace(spec, log=setting.log(spec.name), follow=signal.SIGKILL))
    try:
        with pinned(*cpus):
            await service.start()
        pid = service.pid
        assert pid is not None, "it is ready"
        yield pid
    finally:
        await service.stop()
