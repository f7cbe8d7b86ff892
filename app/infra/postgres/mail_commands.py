"""`holdfast mails`: what customers were told by mail, what could not be sent, and sending it after all.

It only says what is to happen; a consumer does it within a second or two. Said twice is the same as once.
"""

import argparse
import sys
from typing import Final, TextIO

import msgspec

from app import config
from app.infra.postgres import marker
from app.infra.postgres.command import run
from app.infra.postgres.mails import STATES, PostgresMails
from app.infra.postgres.pool import Database
from app.usage import Parser

LIMIT_MAX: Final = 10_000
_LIMIT: Final = 50

_EPILOG: Final = """\
list shows the newest mails; what a mail server said may quote the customer's address. retry has mails that
failed sent after all: those that are named (by the ids that list shows), or --all.

DATABASE_URL names the database."""


def _limit(value: str) -> int:
    if not value.isdecimal() or not 1 <= int(value[:9]) <= LIMIT_MAX:
        raise argparse.ArgumentTypeError(f"a limit is a whole number from 1 to {LIMIT_MAX}")
    return int(value)


def _parser() -> Parser:
    parser = Parser(
        prog="holdfast mails",
        description="Mails to customers.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="show the newest mails")
    listing.add_argument("--state", choices=STATES, help="only these")
    listing.add_argument("--order", metavar="ID", help="only those of this order")
    listing.add_argument("--limit", type=_limit, default=_LIMIT, metavar="N", help="default: %(default)s")
    retry = commands.add_parser("retry", help="have failed mails sent after all")
    retry.add_argument("ids", nargs="*", metavar="ID", help="the mails' ids")
    retry.add_argument("--all", action="store_true", help="every one that failed")
    for command in (listing, retry):
        command.add_argument("--json", action="store_true", help="answer in JSON")
    return parser


async def _list(mails: PostgresMails, asked: argparse.Namespace) -> int:
    found = await mails.page(asked.state, asked.order, asked.limit)
    if asked.json:
        _print(found)
        return 0
    for mail in found:
        when = f"{mail.ended_at or mail.created_at:%Y-%m-%d %H:%M:%S}"
        said = (mail.last_error or "").partition("\n")[0]
        _say(f"{mail.id:41}  {mail.state:7}  {when}  attempts={mail.attempts}  {said}".rstrip())
    if not found:
        _say("there are no such mails")
    return 0


async def _retry(mails: PostgresMails, asked: argparse.Namespace) -> int:
    done = await mails.retry(None if asked.all else asked.ids)
    missing = sorted(set(asked.ids) - set(done))
    if asked.json:
        _print({"retried": done, "not_failed": missing})
    else:
        _say(f"{len(done)} will be sent again")
        for mail in missing:
            _say(f"holdfast mails: {mail} has not failed", sys.stderr)
    return 1 if missing else 0


def _print(value: object) -> None:
    _say(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _say(line: str, to: TextIO | None = None) -> None:
    print(line, file=to or sys.stdout)


async def _run(dsn: str, environment: str, asked: argparse.Namespace) -> int:
    database = await Database(dsn, size=1, name="mails").open()
    try:
        await marker.refuse_for(database, environment, changes=asked.command != "list")
        mails = PostgresMails(database)
        return await (_list if asked.command == "list" else _retry)(mails, asked)
    finally:
        await database.close()


def main(argv: list[str]) -> int:
    """List the mails in the database that DATABASE_URL names, or have failed ones sent after all."""
    parser = _parser()
    asked = parser.parse_args(argv)
    if asked.command == "retry" and bool(asked.ids) is asked.all:
        parser.error("name the mails, or say --all")
    settings = config.load("tool")
    return run("mails", _run(settings.database_url, settings.environment, asked))
