"""`holdfast events`: archive months of events, drop what is archived, put it back, show where it lies.

Every command may be killed anywhere and given again: what was done is found done.
"""

import argparse
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import date
from typing import Any, Final, TextIO

import asyncpg
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from app import config
from app.contracts.streams import GROUP_ANALYTICS, GROUP_NOTIFICATIONS, GROUP_PROJECTIONS, GROUP_WEBHOOKS
from app.infra.archive.archiving import adopt_month, archive_month, fault_of
from app.infra.archive.months import month_of, shown
from app.infra.archive.restoring import restore_month
from app.infra.archive.store import (
    ArchiveError,
    ArchiveStore,
    NotArchivedError,
    UnreachableArchiveError,
    address,
)
from app.infra.postgres import archives, marker, partitions, retention
from app.infra.postgres.command import EXIT_UNREACHABLE, run
from app.infra.postgres.pool import CONNECT_TIMEOUT_S, Connection, login, unavailable_when_away
from app.usage import Parser

LINE_INTERVAL_S: Final = 10.0
GROUPS: Final = (GROUP_PROJECTIONS, GROUP_ANALYTICS, GROUP_NOTIFICATIONS, GROUP_WEBHOOKS)
_COMMAND_TIMEOUT_S: Final = 3600.0

_ARCHIVE: Final = """\
Write the events of months that are over and sealed to a folder or a bucket, each month as compressed lines of
JSON with a manifest, read them back, compare them with the seals, and record that. What is archived there
already is left alone. A month is sealed six hours after its last day."""
_DROP: Final = f"""\
Drop the partitions of the months before one from the database. Each must be in an archive, which is read
again now, have had its effect in every consumer group, leave no dead letter and nothing to be sent, and have
ended at least {retention.MONTHS_KEPT_MIN} months ago. The oldest go first; the first that may not go ends it
(exit code 1). Without --yes it only says what would happen."""


class _Show:
    """How far it is, on stderr: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._next = time.monotonic() + LINE_INTERVAL_S
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._what = ""
        self._total = 0
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._bar.start()
            self._task = self._bar.add_task("")

    def begin(self, what: str, total: int) -> None:
        self._what, self._total = what, total

    def update(self, doing: str, done: int) -> None:
        if self._bar is not None and self._task is not None:
            description = f"{self._what} {doing}"
            self._bar.update(self._task, description=description, completed=done, total=self._total or None)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + LINE_INTERVAL_S
            _print(f"{self._what} {doing}: {done} of {self._total} events", to=sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()


async def _archive(connection: Connection, asked: argparse.Namespace) -> int:
    store = ArchiveStore(asked.to, make=True)
    known = {(row.month, row.url): row for row in await archives.archives(connection)}
    sealed = await archives.sealed_months(connection)
    wanted = [m for m in sealed if asked.before is None or m < asked.before]
    if asked.month is not None:
        if asked.month not in sealed:
            return _fail(f"{shown(asked.month)} is not over, or not all of its days are sealed yet", 1)
        wanted = [asked.month]
    gone = {row.month: row for row in known.values() if row.dropped_at is not None}
    written = []
    show = _Show()
    try:
        for month in wanted:
            if (month, store.url) in known:
                continue
            show.begin(shown(month), sum(s.events for s in await archives.seals_of(connection, month)))
            try:
                if month in gone:
                    row = await adopt_month(connection, store, gone[month], show.update)
                else:
                    row = await archive_month(connection, store, month, show.update)
            except NotArchivedError:
                continue  # it is in another archive only
            written.append(row)
            if not asked.json:
                _print(f"{shown(month)}: {row.events} events, {row.size} bytes, verified")
    finally:
        show.close()
    if asked.json:
        _json({"archive": store.url, "archived": [_row(row) for row in written]})
    elif not written:
        _print("nothing new to archive")
    return 0


async def _drop(connection: Connection, asked: argparse.Namespace) -> int:
    groups = await retention.groups_of(connection, GROUPS)
    done: list[retention.Dropped] = []
    refused: retention.RefusedError | None = None
    for partition in await retention.partitions_before(connection, asked.before):
        act = retention.drop if asked.yes else retention.may_drop
        try:
            done.append(await act(connection, partition, groups, fault_of))
        except retention.RefusedError as error:
            refused = error
            break
        if not asked.json:
            last = done[-1]
            what = "dropped" if asked.yes else "would be dropped"
            _print(f"{last.partition}: {last.events} events {what}; archived in {', '.join(last.archives)}")
    if asked.json:
        reasons = (
            None if refused is None else {"partition": refused.partition.name, "reasons": refused.reasons}
        )
        _json({"dropped" if asked.yes else "would_drop": done, "refused": reasons})
    elif refused is not None:
        _print(f"holdfast events: {refused}", to=sys.stderr)
    elif not done:
        _print(f"there is no partition before {shown(asked.before)}")
    elif not asked.yes:
        _print("nothing was done: say --yes")
    return 0 if refused is None else 1


async def _restore(connection: Connection, asked: argparse.Namespace) -> int:
    show = _Show()
    show.begin(shown(asked.month), sum(s.events for s in await archives.seals_of(connection, asked.month)))
    try:
        row = await restore_month(connection, asked.month, asked.source, show.update)
    finally:
        show.close()
    if asked.json:
        _json({"restored": shown(row.month), "events": row.events})
    else:
        _print(f"{shown(row.month)}: {row.events} events are here again")
    return 0


async def _list(connection: Connection, asked: argparse.Namespace) -> int:
    parts = await partitions.partitions(connection)
    rows = await archives.archives(connection)
    sealed = await archives.sealed_months(connection)
    if asked.json:
        found = [{"name": p.name, "begins": None if _is_open(p) else p.begins, "ends": p.ends} for p in parts]
        _json(
            {
                "partitions": found,
                "sealed": [shown(m) for m in sealed],
                "archived": [_row(row) for row in rows],
            }
        )
        return 0
    for part in parts:
        ends = f"before {part.ends:%Y-%m-%d}" if part.ends else "what has no month"
        _print(f"{part.name:22}  {ends}")
    for row in rows:
        where = "only there" if row.dropped_at else "and here"
        _print(f"{shown(row.month)}  {row.events} events in {row.url}, {where}")
    waiting = [m for m in sealed if m not in {row.month for row in rows}]
    if waiting:
        _print(f"sealed and in no archive: {', '.join(shown(m) for m in waiting)}")
    return 0


def _is_open(part: partitions.Partition) -> bool:
    return part.begins is None or part.begins.year == 1


def _row(row: archives.ArchivedRow) -> dict[str, Any]:
    return {
        "month": shown(row.month),
        "url": row.url,
        "events": row.events,
        "bytes": row.size,
        "manifest_sha256": row.manifest_hash.hex(),
        "archived_at": row.archived_at,
        "dropped_at": row.dropped_at,
    }


_COMMANDS: Final[dict[str, Callable[[Connection, argparse.Namespace], Awaitable[int]]]] = {
    "archive": _archive,
    "drop": _drop,
    "restore": _restore,
    "list": _list,
}


def _month(text: str) -> date:
    try:
        return month_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _address(text: str) -> str:
    try:
        return address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _parser() -> Parser:
    parser = Parser(prog="holdfast events", description="Where the events lie, month by month.")
    commands = parser.add_subparsers(dest="command", required=True)
    put = commands.add_parser("archive", help="write finished months to an archive", description=_ARCHIVE)
    put.add_argument(
        "--to",
        required=True,
        type=_address,
        metavar="URL",
        help="file:///folder, a path, or s3://bucket/prefix",
    )
    which = put.add_mutually_exclusive_group()
    which.add_argument("--month", type=_month, metavar="YYYY-MM", help="this month only")
    which.add_argument("--before", type=_month, metavar="YYYY-MM", help="only months before this one")
    away = commands.add_parser("drop", help="drop archived months from the database", description=_DROP)
    away.add_argument(
        "--before", required=True, type=_month, metavar="YYYY-MM", help="months before this one"
    )
    away.add_argument("--yes", action="store_true", help="do it")
    back = commands.add_parser("restore", help="put a dropped month back, the newest first")
    back.add_argument("--month", required=True, type=_month, metavar="YYYY-MM", help="the month")
    back.add_argument(
        "--from",
        dest="source",
        type=_address,
        metavar="URL",
        help="its archive, if not where it was put",
    )
    listing = commands.add_parser("list", help="show partitions and archived months")
    for command in (put, away, back, listing):
        command.add_argument("--json", action="store_true", help="answer in JSON")
    return parser


async def _run(dsn: str, environment: str, asked: argparse.Namespace) -> int:
    with unavailable_when_away():
        with login():
            connection = await asyncpg.connect(
                dsn,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=_COMMAND_TIMEOUT_S,
                server_settings={"application_name": "holdfast-events", "jit": "off"},
            )
        try:
            await marker.refuse(connection, environment, changes=asked.command != "list")
            return await _COMMANDS[asked.command](connection, asked)
        except UnreachableArchiveError as error:
            return _fail(str(error), EXIT_UNREACHABLE)
        except ArchiveError as error:
            return _fail(str(error), 1)
        finally:
            await connection.close(timeout=5)


def main(argv: list[str]) -> int:
    """Archive, drop or show events of the database that DATABASE_URL names."""
    asked = _parser().parse_args(argv)
    settings = config.load("tool")
    return run("events", _run(settings.database_url, settings.environment, asked))


def _json(value: object) -> None:
    _print(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _print(line: str, to: TextIO | None = None) -> None:
    print(line, file=to or sys.stdout, flush=True)


def _fail(line: str, code: int) -> int:
    _print(f"holdfast events: {line}", to=sys.stderr)
    return code
