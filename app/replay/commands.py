"""`holdfast replay`: events of the past run through a handler again, shown, and applied if somebody says so.

The command only asks and looks on; a worker does the work. If the process dies here, the replay goes on.
"""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from app import config
from app.domain.errors import Refused, Unavailable
from app.infra.postgres import command, marker, replays
from app.infra.postgres.pool import Database
from app.infra.postgres.replays import Asked, Change, PostgresReplays, Replay, Selection
from app.replay import lines
from app.replay.asking import ask
from app.replay.messages import change_document, document
from app.replay.price_files import list_name, prices_in
from app.replay.registry import handlers
from app.usage import EXIT_USAGE, Parser

EXIT_INTERRUPTED: Final = 130
POLL_S: Final = 0.2
PATIENCE_S: Final = 60.0
"""How long a PostgreSQL that went away is waited for."""
QUIET_S: Final = 30.0
"""A replay that has not moved for so long is given to a worker again."""
PAGE: Final = 1000
LISTED: Final = 50
RECORDED: Final = "a replay is recorded there, also one that only shows"
WORDS: Final = ("list", "status", "cancel")

_EPILOG: Final = """\
Without --apply nothing is changed: what would be is shown. --plan applies exactly what an earlier replay
has shown, or refuses. Ctrl-C only stops looking on; --resume looks on again. `status ID`, `cancel ID` and
`list` do what they say.

DATABASE_URL names the database; a running worker does the work. Each replay is recorded there, also one that
only shows: in production's database ENVIRONMENT=production has to say that it is meant."""


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
        if len(text) == len("2026-01-31"):
            return at.replace(tzinfo=UTC)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError("a time is like 2026-01-31T12:00:00Z, or a day (UTC) like 2026-01-31")


def _parameters(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        raise argparse.ArgumentTypeError("parameters are a JSON object") from None


def _parser() -> Parser:
    known = handlers()
    parser = Parser(
        prog="holdfast replay",
        description="Run events of the past through a handler again:\n"
        + "\n".join(f"  {name:16} {handler.about}" for name, handler in known.items()),
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--handler", metavar="NAME", help=", ".join(known))
    what.add_argument("--plan", metavar="ID", help="apply what this replay has shown")
    what.add_argument("--resume", metavar="ID", help="look on again")
    for word in WORDS:
        value: dict[str, Any] = {"action": "store_true"} if word == "list" else {"metavar": "ID"}
        what.add_argument(f"--{word}", help=argparse.SUPPRESS, **value)
    parser.add_argument("--from", dest="since", type=_time, metavar="T", help="only events from then on")
    parser.add_argument("--to", dest="until", type=_time, metavar="T", help="only events before then")
    parser.add_argument("--type", metavar="TYPE", help="only events of this type, e.g. order.accepted.v1")
    parser.add_argument("--order", metavar="ID", help="only events of this order")
    parser.add_argument("--rate", type=int, metavar="N", help="at most so many events a second")
    parser.add_argument(
        "--parameters", type=_parameters, metavar="JSON", help="what the handler wants to know"
    )
    parser.add_argument(
        "--prices", type=prices_in, metavar="FILE",
        help="for reprice: the corrected price list, CSV (sku,amount,currency) or JSON",
    )  # fmt: skip
    parser.add_argument(
        "--price-list", type=list_name, metavar="NAME", help="what it is called, if not as FILE is"
    )
    parser.add_argument("--apply", action="store_true", help="change what differs, not only show it")
    parser.add_argument("--json", action="store_true", help="answer in JSON, with every row")
    return parser


async def _ask(database: Database, asked: argparse.Namespace) -> Replay:
    wanted = Asked(
        handler=asked.handler,
        selection=Selection(asked.since, asked.until, asked.type, asked.order),
        parameters=_parameters_of(asked),
        rate_per_s=asked.rate,
        is_applied=asked.apply,
    )
    async with database.transaction() as connection:
        return await ask(connection, wanted, handlers())


def _parameters_of(asked: argparse.Namespace) -> dict[str, Any]:
    named = {"price_list": asked.price_list} if asked.price_list else {}
    return {**(asked.parameters or {}), **(asked.prices or {}), **named}


async def _follow(database: Database, replay: Replay, asked: argparse.Namespace) -> int:
    """Look on until it has ended; then say what came of it."""
    following = lines.following(sys.stderr)
    try:
        replay = await _until_ended(database, replay, following)
    finally:
        following.close()
    found = await _changes(database, replay, None if asked.json else lines.ROWS_MAX)
    if asked.json:
        _print({"replay": document(replay), "changes": [change_document(replay, c) for c in found]})
    else:
        lines.tell(replay, found)
    return 0 if replay.state in {replays.SHOWN, replays.APPLIED} else 1


async def _until_ended(database: Database, replay: Replay, following: lines.Following) -> Replay:
    away_since: float | None = None
    clock = asyncio.get_running_loop().time
    while not replay.has_ended:
        following.show(replay)
        await asyncio.sleep(POLL_S)
        try:
            replay = await PostgresReplays(database).one(replay.id) or replay
            away_since = None
        except Unavailable:
            away_since = away_since or clock()
            if clock() - away_since > PATIENCE_S:
                raise
    following.show(replay)
    return replay


async def _changes(database: Database, replay: Replay, limit: int | None) -> list[Change]:
    found: list[Change] = []
    while limit is None or len(found) < limit:
        behind = found[-1].number if found else 0
        page = await PostgresReplays(database).changes(replay.id, behind, limit or PAGE)
        found += page
        if len(page) < (limit or PAGE):
            break
    return found


async def _start(database: Database, asked: argparse.Namespace) -> int:
    return await _look_on(database, await _ask(database, asked), asked)


async def _plan(database: Database, asked: argparse.Namespace) -> int:
    async with database.transaction() as connection:
        replay = await replays.ask_to_apply(connection, asked.plan)
    return await _look_on(database, replay, asked)


async def _resume(database: Database, asked: argparse.Namespace) -> int:
    async with database.transaction() as connection:
        replay = await replays.lock(connection, asked.resume)
        quiet_s = (datetime.now(UTC) - replay.updated_at).total_seconds()
        if not replay.has_ended and quiet_s > QUIET_S:
            await replays.resume(connection, replay)
    return await _look_on(database, replay, asked)


async def _look_on(database: Database, replay: Replay, asked: argparse.Namespace) -> int:
    try:
        return await _follow(database, replay, asked)
    except (asyncio.CancelledError, Unavailable):
        again = f"holdfast replay --resume {replay.id}"
        lines.say(f"\n{replay.id} goes on by itself. To look on again: {again}", sys.stderr)
        raise


async def _status(database: Database, asked: argparse.Namespace) -> int:
    replay = await PostgresReplays(database).one(asked.status)
    if replay is None:
        raise LookupError(asked.status)
    if asked.json:
        _print(document(replay))
    else:
        lines.say(f"{replay.id}  {replay.handler}  {lines.how_far(replay)}")
        if replay.error:
            lines.say(replay.error)
    return 0


async def _cancel(database: Database, asked: argparse.Namespace) -> int:
    async with database.transaction() as connection:
        replay = await replays.cancel(connection, asked.cancel)
    if asked.json:
        _print(document(replay))
    else:
        lines.say(f"{replay.id} is cancelled")
    return 0


async def _list(database: Database, asked: argparse.Namespace) -> int:
    found = await PostgresReplays(database).page(None, LISTED)
    if asked.json:
        _print([document(replay) for replay in found])
        return 0
    for replay in found:
        lines.say(
            f"{replay.id}  {replay.created_at:%Y-%m-%d %H:%M}Z  {replay.handler}  {lines.how_far(replay)}"
        )
    if not found:
        lines.say("there are no replays")
    return 0


_COMMANDS: Final[dict[str, Callable[[Database, argparse.Namespace], Awaitable[int]]]] = {
    "handler": _start,
    "plan": _plan,
    "resume": _resume,
    "status": _status,
    "cancel": _cancel,
    "list": _list,
}


async def _run(dsn: str, environment: str, asked: argparse.Namespace) -> int:
    database = await Database(dsn, size=1, name="replay").open()
    run = next(run for name, run in _COMMANDS.items() if getattr(asked, name))
    try:
        why = RECORDED if run is _start else ""
        await marker.refuse_for(database, environment, changes=run not in {_status, _list}, why=why)
        return await run(database, asked)
    except Refused as refused:
        lines.say(f"holdfast replay: {refused.refusal.detail}", sys.stderr)
        return 1 if refused.refusal.code == replays.NOT_NOW else EXIT_USAGE
    except LookupError as missing:
        lines.say(f"holdfast replay: there is no replay {missing.args[0]}", sys.stderr)
        return 1
    finally:
        await database.close()


def _print(value: object) -> None:
    lines.say(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def main(argv: list[str]) -> int:
    """Ask for a replay in the database that DATABASE_URL names, and look on."""
    parser = _parser()
    words = [f"--{argv[0]}", *argv[1:]] if argv and argv[0] in WORDS else argv
    asked = parser.parse_args(words)
    if not asked.handler and (
        asked.apply
        or asked.type
        or asked.order
        or asked.since
        or asked.until
        or asked.rate
        or _parameters_of(asked)
    ):
        parser.error("only with --handler can anything be chosen")
    settings = config.load("tool")
    try:
        return command.run("replay", _run(settings.database_url, settings.environment, asked))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
