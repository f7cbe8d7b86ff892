"""Owns a running stack: starts its processes in order, starts again what dies, stops all in order.

Guarantees: when `run` is ready, every process answered; when it returns or raises, none is left. A process
that dies is started again on the same port, after 0.2 s at first and at most 5 s later (unless that was
declined; then it waits until it is asked for). If the supervisor is killed, its guard stops everything
(guard.py). It sleeps until a process ends or a signal comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, field

from app.dev.stack import leftovers, ports, progress, state
from app.dev.stack.errors import FAILED, ServiceFailed, StackError, explain
from app.dev.stack.folder import DataFolder
from app.dev.stack.guard import Guard
from app.dev.stack.modes import MODES, Plan, python_environment
from app.dev.stack.postgres import EmbeddedPostgres
from app.dev.stack.processes import identify
from app.dev.stack.progress import Notice, Tell
from app.dev.stack.service import Service, Spec, bound, describe
from app.dev.stack.stops import STOPS
from app.dev.stack.temporal import EmbeddedTemporal
from app.dev.stack.valkey import EmbeddedValkey

START_MISSING = signal.SIGUSR1
BACKOFF_FIRST_S = 0.2
BACKOFF_MAX_S = 5.0
RAN_WELL_S = 10.0
_LOGS_EVERY_S = 60.0
_PORT_RACES_MAX = 3
TASKS = ("migrate", "seed")
SERVERS = ("postgres", "redis", "temporal")


@dataclass(frozen=True, slots=True)
class Options:
    """How a stack is to be run. `only_servers` leaves out the sandbox and the modes (tests)."""

    fresh: bool = False
    gateway_port: int | None = None
    restart: bool = True
    only_servers: bool = False


@dataclass(slots=True)
class Member:
    """A process that is to run for as long as the stack does."""

    service: Service
    start: Callable[[], Awaitable[None]]
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    keeper: asyncio.Task[None] | None = None


class Supervisor:
    """One run of a stack, in the process that called it. `lock` is the descriptor of the folder's lock."""

    def __init__(self, folder: DataFolder, lock: int, options: Options, tell: Tell) -> None:
        self._folder = folder
        self._options = options
        self._tell = tell
        self._members: dict[str, Member] = {}
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        run = secrets.token_hex(8)
        me = identify(os.getpid())
        if me is None:
            raise StackError("/proc cannot be read; the embedded stack needs it.")
        self._state = state.RunState(run, me)
        self._claims = ports.Claims()
        self._guard = Guard(folder, run, lock, python_environment())

    async def run(self, ready: Callable[[], None]) -> int:
        """Start everything, call `ready`, run until told to stop, stop everything. Raises StackError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_stop)
        loop.add_signal_handler(START_MISSING, self._on_start_missing)
        self._guard.start()
        chores = [asyncio.create_task(self._guard.keep()), asyncio.create_task(self._bound_logs())]
        stopping = asyncio.create_task(self._stop.wait())
        starting = asyncio.create_task(self._bring_up())
        try:
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return FAILED
            starting.result()
            self._state.phase = state.READY
            self._record()
            ready()
            await stopping
            return 0
        finally:
            for task in (starting, stopping, *chores):
                task.cancel()
            await asyncio.gather(starting, stopping, *chores, return_exceptions=True)
            await self._shut_down()

    def _on_stop(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def _on_start_missing(self) -> None:
        for member in self._members.values():
            if not member.service.running:
                member.wanted.set()

    def _record(self) -> None:
        self._state.services = {
            name: self._members[name].service.identity if name in self._members else None
            for name in self._names()
        }
        codes = {name: member.service.exit_code for name, member in self._members.items()}
        self._state.exits = {name: code for name, code in codes.items() if code is not None}
        try:
            self._state.save(self._folder.state_file)
        except OSError as error:
            self._tell(
                Notice(progress.WARNING, text=str(explain(error, "Cannot write", self._folder.state_file)))
            )

    def _names(self) -> tuple[str, ...]:
        return SERVERS if self._options.only_servers else (*SERVERS, "sandbox", *MODES)

    async def _bring_up(self) -> None:
        await self._clear_leftovers()  # they are looked up in the file that is written next
        self._record()
        if self._options.fresh:
            await asyncio.to_thread(self._folder.clear)
        self._folder.mark()
        for _ in range(_PORT_RACES_MAX):
            try:
                await self._start_all()
                return
            except ServiceFailed as failure:
                port = self._state.ports.get(failure.name)
                if port is None or ports.is_free(port):
                    raise
                self._tell(Notice(progress.NOTE, text=f"Port {port} was taken meanwhile; starting again."))
                await self._stop_members()
        raise StackError("Ports are taken by other programs faster than this one can use them.")

    async def _start_all(self) -> None:
        last = ports.remembered(self._folder.ports_file)
        chosen, moved = ports.choose(last, self._claims, self._options.gateway_port)
        if moved is not None:
            self._tell(Notice(progress.NOTE, text=moved))
        self._folder.save_ports(chosen)
        self._state.ports = chosen
        plan = Plan(self._folder, self._state.run, chosen, self._folder.secrets())
        postgres = EmbeddedPostgres(
            self._folder.place("postgres"),
            chosen["postgres"],
            log=self._folder.log("postgres"),
            env=plan.tag("postgres"),
        )
        await _all(*self._servers(plan, postgres))
        if not self._options.only_servers:
            await _all(*(self._begin_process(plan.mode(name, postgres.dsn)) for name in MODES))

    def _servers(self, plan: Plan, postgres: EmbeddedPostgres) -> list[Coroutine[None, None, None]]:
        valkey = EmbeddedValkey(
            self._folder.place("valkey"),
            plan.ports["redis"],
            log=self._folder.log("redis"),
            env=plan.tag("redis"),
        )
        temporal = EmbeddedTemporal(
            self._folder.place("temporal"),
            plan.ports["temporal"],
            plan.ports["temporal_ui"],
            plan.ports["temporal_http"],
            log=self._folder.log("temporal"),
            env=plan.tag("temporal"),
        )
        starts = [
            self._begin_database(plan, postgres),
            self._begin_server(valkey),
            self._begin_server(temporal),
        ]
        if not self._options.only_servers:
            starts.append(self._begin_sandbox(plan))
        return starts

    async def _begin_database(self, plan: Plan, postgres: EmbeddedPostgres) -> None:
        await self._begin_server(postgres)
        for name in () if self._options.only_servers else TASKS:
            with self._step(name):
                await Service(plan.task(name, postgres.dsn)).complete()

    async def _begin_sandbox(self, plan: Plan) -> None:
        place = self._folder.place("sandbox")
        try:
            place.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise explain(error, "Cannot make the sandbox's data folder", place) from error
        await self._begin_process(plan.sandbox())

    async def _begin_process(self, spec: Spec) -> None:
        with self._step(spec.name):
            await self._begin(Service(spec))

    async def _begin_server(self, server: EmbeddedPostgres | EmbeddedValkey | EmbeddedTemporal) -> None:
        with self._step(server.name):
            await self._begin(await server.prepare(), server.start)
        for text in server.notices:
            self._tell(Notice(progress.NOTE, text=text))

    async def _begin(self, service: Service, start: Callable[[], Awaitable[None]] | None = None) -> None:
        """Start a member for the first time and keep it running from then on."""
        name = service.spec.name
        member = self._members[name] = Member(service, start or service.start)
        service.changed = self._record
        await member.start()
        member.keeper = asyncio.create_task(self._keep(name, member))

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        self._tell(Notice(progress.BEGIN, name))
        yield
        self._tell(Notice(progress.DONE, name, f"{time.monotonic() - begun:.1f} s"))

    async def _keep(self, name: str, member: Member) -> None:
        """Start the member again whenever it ends."""
        delay_s = BACKOFF_FIRST_S
        ready_since = time.monotonic()
        while True:
            if member.service.running:
                code = await member.service.ended()
                if time.monotonic() - ready_since > RAN_WELL_S:
                    delay_s = BACKOFF_FIRST_S
                self._tell(Notice(progress.WARNING, name, f"{name} is gone ({describe(code)})"))
            await self._wait_to_start(member, delay_s)
            delay_s = min(delay_s * 2, BACKOFF_MAX_S)
            try:
                await member.start()
            except StackError as error:
                self._tell(Notice(progress.WARNING, name, str(error)))
                continue
            ready_since = time.monotonic()
            self._tell(Notice(progress.DONE, name, f"runs again (pid {member.service.pid})"))

    async def _wait_to_start(self, member: Member, delay_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s if self._options.restart else None):
                await member.wanted.wait()
        member.wanted.clear()

    async def _clear_leftovers(self) -> None:
        left = await leftovers.stop(
            self._folder,
            tell=lambda name: self._tell(Notice(progress.NOTE, text=f"Stopping {name} of an earlier run.")),
        )
        if left:
            names = ", ".join(f"{one.name} (pid {one.identity.pid})" for one in left)
            raise StackError(
                f"Processes of an earlier run cannot be stopped: {names}. End them, then start again."
            )

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.sleep(_LOGS_EVERY_S)
            for member in self._members.values():
                with contextlib.suppress(OSError):
                    bound(member.service.spec.log)

    async def _shut_down(self) -> None:
        """Stop all members in order, then let the guard go."""
        self._state.phase = state.STOPPING
        self._record()
        await self._stop_members()
        await leftovers.stop(self._folder, self._state.run)
        with contextlib.suppress(OSError):
            self._folder.state_file.unlink(missing_ok=True)
            self._folder.give_back()
        self._claims.release()
        await self._guard.dismiss()

    async def _stop_members(self) -> None:
        keepers = [member.keeper for member in self._members.values() if member.keeper is not None]
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        for name in [name for name in STOPS if name in self._members]:
            service = self._members[name].service
            if service.running:
                self._tell(Notice(progress.BEGIN, name))
                await service.stop(hurry=self._hurry)
                self._tell(Notice(progress.DONE, name, "stopped"))
        self._members.clear()


async def _all(*starts: Coroutine[None, None, None]) -> None:
    """Run them together; the first failure cancels the others and is raised."""
    try:
        async with asyncio.TaskGroup() as group:
            for start in starts:
                group.create_task(start)
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from several
