"""`holdfast audit verify`: whether the past is what it was: every chain of events, every daily seal.

It only reads, a batch at a time, from the database itself or from a copy of it. It says each break as it
finds it, and exits 1 when there was one. If it is ended in the middle, it begins anew.
"""

import argparse
import hashlib
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from datetime import date
from typing import Final, TextIO

import asyncpg
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from app import config
from app.domain.chain import Break
from app.infra.archive.auditing import ArchiveAudit
from app.infra.archive.store import NotArchivedError, UnreachableArchiveError, address
from app.infra.postgres.archives import dropped_months, dropped_until
from app.infra.postgres.chain_audit import ChainAudit, Span, estimate
from app.infra.postgres.command import EXIT_UNREACHABLE, run
from app.infra.postgres.pool import CONNECT_TIMEOUT_S, Connection, login, unavailable_when_away
from app.infra.postgres.seal_audit import SealAudit
from app.infra.postgres.seals import SETTLE, moments_of
from app.usage import Parser

BREAKS_MAX: Final = 1000
"""How many breaks are said; the rest is counted."""
LINE_INTERVAL_S: Final = 10.0
_COMMAND_TIMEOUT_S: Final = 900.0
_CLOSE_TIMEOUT_S: Final = 5.0
_SETTLE_H: Final = SETTLE.total_seconds() / 3600
_DESCRIPTION: Final = f"""\
Check every chain of events and every daily seal: each event is hashed anew from what is stored and follows
the one before it, each chain ends where its order or product says, each day is what was sealed
{_SETTLE_H:.0f} hours after its end. Months that are only in an archive are read there (with --from or --to,
how they join the months beside them is not looked at). Exit code 0: all is as it was; 1: it is not, and
where; 69: somebody who is needed does not answer."""


class Verdict(msgspec.Struct, kw_only=True):
    """What was found. `found` holds the first breaks, `breaks` counts all; `last_seal` is the newest seen.

    `overdue_days` should have a seal and have none yet: no break, but somebody should ask why.
    `archived_months` were read from an archive.
    """

    is_whole: bool = True
    events: int = 0
    subjects: int = 0
    seals: int = 0
    last_seal: dict[str, str] | None = None
    overdue_days: int = 0
    archived_months: int = 0
    breaks: int = 0
    kinds: dict[str, int] = msgspec.field(default_factory=dict)
    found: list[Break] = msgspec.field(default_factory=list)


class Findings:
    """Collects breaks; says each of them at once, unless the answer is to be JSON."""

    def __init__(self, *, quiet: bool) -> None:
        """Nothing was found yet."""
        self._quiet = quiet
        self.found: list[Break] = []
        self.kinds: Counter[str] = Counter()

    def add(self, found: Break) -> None:
        """A break."""
        self.kinds[found.kind] += 1
        if len(self.found) < BREAKS_MAX:
            self.found.append(found)
            if not self._quiet:
                _print(line_of(found))
        elif len(self.found) == BREAKS_MAX and self.kinds.total() == BREAKS_MAX + 1 and not self._quiet:
            _print("… more breaks are only counted")


def line_of(found: Break) -> str:
    """A break for people."""
    if found.subject is None:
        where = f"the day {found.day}"
    else:
        where = found.subject if found.sequence is None else f"{found.subject}:{found.sequence}"
    return f"{where}: {found.detail} ({found.kind})"


async def verify(
    connection: Connection,
    findings: Findings,
    begin: date | None = None,
    end: date | None = None,
    known: Iterable[tuple[date, bytes]] = (),
    archive: str | None = None,
) -> AsyncIterator[Verdict]:
    """Walk all chains and seals, or those with an event from `begin` to `end`; the verdict so far, often.

    `known` are hashes of seals that were kept somewhere else. Months that are no longer here are read from
    `archive`, or from where they were archived.

    Raises what PostgreSQL says, UnreachableArchiveError and NotArchivedError.
    """
    span = None
    if begin is not None or end is not None:
        span = Span(moments_of(begin or date(1, 1, 2))[0], moments_of(end or date(9999, 12, 30))[1])
    dropped = await dropped_months(connection)
    chains = ChainAudit(connection, findings.add, await dropped_until(connection))
    seals = SealAudit(connection, findings.add, {row.month for row in dropped})
    archived = ArchiveAudit(connection, findings.add, chains, archive)

    def verdict() -> Verdict:
        last = seals.last
        return Verdict(
            is_whole=not findings.kinds,
            events=chains.events + archived.events,
            subjects=chains.subjects,
            seals=seals.seals,
            last_seal=None if last is None else {"day": last.day.isoformat(), "hash": last.hash.hex()},
            breaks=findings.kinds.total(),
            archived_months=archived.months,
            kinds=dict(findings.kinds),
            found=findings.found,
        )

    async for _ in chains.run(span):
        yield verdict()
    async for _ in seals.run(begin, end):
        yield verdict()
    async for _ in archived.run(dropped, begin, end):
        yield verdict()
    for day, hash_ in known:
        await seals.expect(day, hash_)
    yield msgspec.structs.replace(verdict(), overdue_days=await seals.overdue())


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[Connection]:
    settings = {"application_name": "holdfast-audit", "default_transaction_read_only": "on", "jit": "off"}
    with login():
        connection = await asyncpg.connect(
            dsn, timeout=CONNECT_TIMEOUT_S, command_timeout=_COMMAND_TIMEOUT_S, server_settings=settings
        )
    try:
        yield connection
    finally:
        with suppress(OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=_CLOSE_TIMEOUT_S)


class _Show:
    """How far it is, on stderr: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, total: int) -> None:
        self._next = time.monotonic() + LINE_INTERVAL_S
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._bar.add_task("events", total=total or None)

    def update(self, verdict: Verdict) -> None:
        if self._bar is not None:
            task = self._bar.tasks[0]
            total = max(task.total or 0, verdict.events)
            self._bar.update(task.id, completed=verdict.events, total=total)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_INTERVAL_S
            _print(f"{verdict.events} events, {verdict.seals} seals", to=sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


async def _verdict(dsn: str, asked: argparse.Namespace) -> Verdict:
    with unavailable_when_away():
        async with _connected(dsn) as connection:
            verdict = Verdict()
            show = _Show(await estimate(connection))
            try:
                findings = Findings(quiet=asked.json)
                async for verdict in verify(
                    connection, findings, asked.begin, asked.end, asked.known, asked.archive
                ):
                    show.update(verdict)
            finally:
                show.close()
            return verdict


def _day(value: str) -> date:
    try:
        day = date.fromisoformat(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"it must be a day like 2026-01-31, not {value!r}") from None
    if not date(1, 1, 2) <= day <= date(9999, 12, 30):
        raise argparse.ArgumentTypeError("there is no such day")
    return day


def _known(value: str) -> tuple[date, bytes]:
    day, _, hash_ = value.partition("=")
    try:
        known = bytes.fromhex(hash_)
    except ValueError:
        known = b""
    if len(known) != hashlib.sha256().digest_size:
        raise argparse.ArgumentTypeError(
            "it must be a day and the hash of its seal: 2026-01-31=64 hex digits"
        )
    return _day(day), known


def _address(value: str) -> str:
    try:
        return address(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> Parser:
    parser = Parser(prog="holdfast audit", description="Audit the log of record.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser(
        "verify", help="check every chain and every daily seal", description=_DESCRIPTION
    )
    check.add_argument(
        "--from",
        dest="begin",
        type=_day,
        metavar="D",
        help="only chains with an event from this day on (UTC)",
    )
    check.add_argument("--to", dest="end", type=_day, metavar="D", help="… up to this day, and its seals")
    check.add_argument(
        "--seal",
        dest="known",
        type=_known,
        action="append",
        default=[],
        metavar="D=HASH",
        help="a seal as it was kept somewhere else: it must be the same",
    )
    check.add_argument(
        "--archive",
        type=_address,
        metavar="URL",
        help="where archived months lie, if not where they were archived",
    )
    check.add_argument("--json", action="store_true", help="answer in JSON")
    return parser


def _say(verdict: Verdict) -> None:
    counts = f"{verdict.events} events of {verdict.subjects} subjects, {verdict.seals} seals"
    if verdict.archived_months:
        counts += f", {verdict.archived_months} months from the archive"
    if verdict.is_whole:
        last = verdict.last_seal
        newest = f"; the last seal, of {last['day']}, is {last['hash']}" if last else ""
        _print(f"all is as it was: {counts}{newest}")
    else:
        kinds = ", ".join(f"{number} {kind}" for kind, number in sorted(verdict.kinds.items()))
        _print(f"{verdict.breaks} breaks ({kinds}) in {counts}")
    if verdict.overdue_days:
        _print(f"{verdict.overdue_days} days wait for their seals: does a consumer run?", sys.stderr)


def main(argv: list[str]) -> int:
    """Audit the database that DATABASE_URL names."""
    asked = _parser().parse_args(argv)
    if asked.begin and asked.end and asked.begin > asked.end:
        _parser().error("--from must not be later than --to")
    settings = config.load("tool")
    return run("audit", _run(settings.database_url, asked))


async def _run(dsn: str, asked: argparse.Namespace) -> int:
    try:
        verdict = await _verdict(dsn, asked)
    except UnreachableArchiveError as error:
        return _fail(f"{error}; the months in it were not checked", EXIT_UNREACHABLE)
    except NotArchivedError as error:
        return _fail(f"{error}; the months in it were not checked", 1)
    if asked.json:
        _print(msgspec.json.format(msgspec.json.encode(verdict), indent=2).decode())
    else:
        _say(verdict)
    return 0 if verdict.is_whole else 1


def _print(line: str, to: TextIO | None = None) -> None:
    print(line, file=to or sys.stdout, flush=True)


def _fail(line: str, code: int) -> int:
    _print(f"holdfast audit: {line}", to=sys.stderr)
    return code
