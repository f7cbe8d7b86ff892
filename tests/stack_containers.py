"""The shared servers as containers of a test process's own: HOLDFAST_TEST_STACK=containers.

Guarantees: no container outlives this process for longer than moments, however it ends:
tests/stack_reaper.py removes what carries this process's label. (testcontainers' own way is another
container; whoever wants that one beside ours sets TESTCONTAINERS_RYUK_DISABLED=false.) What even that left
behind, because the whole machine went down, the next run removes.
"""

import asyncio
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Self

import asyncpg
import redis
from docker.errors import APIError, DockerException
from temporalio.service import RPCError
from testcontainers.core.config import ConnectionMode
from testcontainers.core.container import DockerContainer

from app.contracts.temporal import ATTRIBUTES
from app.dev.stack import ports, processes
from app.dev.stack import postgres as embedded_postgres
from app.dev.stack import temporal as embedded_temporal
from app.dev.stack import valkey as embedded_valkey
from tests.stack import Postgres, Redis, Temporal
from tests.stack_reaper import DONE, OWNER, leave_nothing

# What the manifests pin (a test holds the two together); HOLDFAST_TEST_…_IMAGE names others.
POSTGRES_IMAGE = "postgres:18.6"
REDIS_IMAGE = "valkey/valkey:9.1.2"
TEMPORAL_IMAGE = "temporalio/temporal:1.9.1"

NETWORK = "HOLDFAST_TEST_CONTAINER_NETWORK"
"""`host`: the servers listen on 127.0.0.1 of this machine, for engines that have no bridge."""

START_TIMEOUT_S = 180.0
_AWAY = (OSError, RuntimeError, asyncpg.PostgresError, redis.RedisError, RPCError)


def image(server: str) -> str:
    """Of which image a server's container is made."""
    default = {"POSTGRES": POSTGRES_IMAGE, "REDIS": REDIS_IMAGE, "TEMPORAL": TEMPORAL_IMAGE}[server]
    return os.environ.get(f"HOLDFAST_TEST_{server}_IMAGE") or default


class Containers:
    """The containers of this process, each started when first wanted; all removed at the end."""

    def __init__(self) -> None:
        self.owner = _owner()
        self.is_on_host = os.environ.get(NETWORK) == "host"
        self.started: list[DockerContainer] = []
        self._reaper: subprocess.Popen[bytes] | None = None
        # Processors are shared out between containers and single processes alike: a server is many processes.
        self._limits = {"labels": {OWNER: self.owner}, "shm_size": "256m", "cpu_shares": 16 * 1024}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for container in self.started:
            await asyncio.to_thread(container.stop)
        if self._reaper is not None:
            await asyncio.to_thread(self._reaper.communicate, DONE)

    async def postgres(self) -> Postgres:
        """A PostgreSQL that keeps nothing safe from a power cut."""
        password, port = secrets.token_urlsafe(24), self._port(5432)
        settings = {
            name: embedded_postgres.SETTINGS[name] for name in ("max_connections", "max_wal_size", "jit")
        }
        settings |= embedded_postgres.FAST | {"listen_addresses": self._listening}
        container, there = await self._run(
            image("POSTGRES"),
            port,
            ["postgres", *(part for name, value in settings.items() for part in ("-c", f"{name}={value}"))],
            {
                "POSTGRES_USER": embedded_postgres.USER,
                "POSTGRES_PASSWORD": password,
                "POSTGRES_DB": embedded_postgres.DATABASE,
                "POSTGRES_INITDB_ARGS": "--encoding=UTF8 --locale=C.UTF-8 --no-sync",
                "PGPORT": str(port),
            },
        )
        user, database = embedded_postgres.USER, embedded_postgres.DATABASE
        server = Postgres(f"postgresql://{user}:{password}@{there}/{database}")
        await _until_serves(container, server.ask)
        return server

    async def redis(self) -> Redis:
        """A Redis that keeps nothing on disk."""
        port = self._port(6379)
        settings = {
            name: embedded_valkey.SETTINGS[name] for name in ("save", "maxmemory", "maxmemory-policy")
        }
        settings |= {"appendonly": "no", "protected-mode": "no", "bind": self._listening, "port": str(port)}
        # Options alone: the image knows whether its program is called redis-server or valkey-server.
        command = [part for name, value in settings.items() for part in (f"--{name}", value)]
        container, there = await self._run(image("REDIS"), port, command)
        server = Redis(f"redis://{there}/0")
        await _until_serves(container, server.ask)
        return server

    async def temporal(self) -> Temporal:
        """The development server of Temporal's command line tool, in memory."""
        port, namespace = self._port(7233), embedded_temporal.NAMESPACE
        command = ["server", "start-dev", "--headless", "--ip", self._listening, "--port", str(port)]
        command += ["--namespace", namespace, "--log-level", "warn"]
        command += [part for name in ATTRIBUTES for part in ("--search-attribute", f"{name}=Keyword")]
        for name, value in embedded_temporal.TUNING.items():
            shown = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["--dynamic-config-value", f"{name}={shown}"]
        environment = {"TEMPORAL_VERSION_CHECK_DISABLED": "1", **embedded_temporal.GO}
        container, there = await self._run(image("TEMPORAL"), port, command, environment)
        server = Temporal(there, namespace)
        await _until_serves(container, server.ask)
        return server

    @property
    def _listening(self) -> str:
        return "127.0.0.1" if self.is_on_host else "0.0.0.0"

    def _port(self, usual: int) -> int:
        return ports.any_free() if self.is_on_host else usual

    async def _run(
        self, name: str, port: int, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> tuple[DockerContainer, str]:
        """Start a container; it and the address of its port, at which nobody need listen yet."""
        container = await asyncio.to_thread(self._container, name)
        for key, value in (environment or {}).items():
            container.with_env(key, value)
        container.with_command(list(command))
        if self.is_on_host:
            container.with_kwargs(network_mode="host", **self._limits)
        elif _is_here(container):
            container.ports[str(port)] = ("127.0.0.1",)  # type: ignore[assignment] # any port, for nobody else
        else:
            container.with_exposed_ports(port)
        self.started.append(container)
        await asyncio.to_thread(container.start)
        if self.is_on_host:
            return container, f"127.0.0.1:{port}"
        host = await asyncio.to_thread(container.get_container_host_ip)
        return container, f"{host}:{await asyncio.to_thread(container.get_exposed_port, port)}"

    def _container(self, name: str) -> DockerContainer:
        """A container that is not made yet; from the first on, somebody watches over them."""
        os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
        try:
            container = DockerContainer(name, **self._limits)
        except DockerException as error:
            raise RuntimeError(
                "No container engine answers: start Docker, or name another engine's address in DOCKER_HOST"
            ) from error
        if self._reaper is None:
            client = container.get_docker_client().client
            for left in {c.labels[OWNER] for c in client.containers.list(all=True, filters={"label": OWNER})}:
                if _is_gone(left):
                    leave_nothing(client, left)
            self._reaper = subprocess.Popen(
                [sys.executable, "-P", Path(__file__).with_name("stack_reaper.py"), self.owner],
                stdin=subprocess.PIPE,
                start_new_session=True,  # what kills this process and all its group leaves it alone
            )
        return container


async def _until_serves(container: DockerContainer, ask: Callable[[], Awaitable[None]]) -> None:
    """Wait until the server in a container answers. Raises RuntimeError with its log when it ends instead."""
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while True:
                try:
                    return await ask()
                except _AWAY:
                    await asyncio.to_thread(container.reload)
                    if container.status == "exited":
                        raise RuntimeError(f"{container.image} ended:\n{_log(container)}") from None
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise RuntimeError(
            f"{container.image} did not serve in {START_TIMEOUT_S:g} s:\n{_log(container)}"
        ) from None


def _log(container: DockerContainer) -> str:
    try:
        return container.get_wrapped_container().logs(tail=20).decode(errors="replace")
    except APIError as error:
        return str(error)


def _is_here(container: DockerContainer) -> bool:
    """Whether the engine's ports are this machine's, so that 127.0.0.1 will do."""
    client = container.get_docker_client()
    return client.get_connection_mode() is ConnectionMode.docker_host and client.host() == "localhost"


def _owner() -> str:
    """This process, told apart from any other one of any machine, ever."""
    itself = processes.identify(os.getpid())
    assert itself is not None
    return f"{_machine()}/{itself.pid}/{itself.started}"


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return f"{socket.gethostname()}/{boot}"


def _is_gone(owner: str) -> bool:
    """Whether it was a process of this machine that has ended; of another machine's nothing is known."""
    host, boot, pid, started = owner.split("/")
    if f"{host}/{boot}" != _machine():
        return host == socket.gethostname()  # it was before this machine was started
    return not processes.alive(processes.Identity(int(pid), int(started)))
