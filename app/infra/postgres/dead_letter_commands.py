"""`holdfast dlq`: the dead letters of the consumer groups: looked at, tried again, left out.

It only says what is to happen; a consumer does it within a second or two. Said twice is the same as once.
"""

import argparse
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, TextIO

import msgspec

from app import config
from app.infra.postgres import marker
from app.infra.postgres.command import run
from app.infra.postgres.dead_letters import (
    DECIDED_MAX,
    FAILED,
    ID_MAX,
    STATES,
    UNKNOWN,
    WAITING,
    Chosen,
    DeadLetter,
    DeadLetters,
    document,
)
from app.infra.postgres.pool import Database
from app.usage import Parser

PAGE_SIZE_MAX: Final = 200
_CONDITIONS: Final = ("group", "type", "subject", "kind", "since", "until")

_EPILOG: Final = """\
list shows the letters that wait; --all shows those that were dealt with, too. retry and discard take ids, or
whatever of --group, --type, --subject, --kind, --since and --until has to be true of a letter that waits, or
--all. A retried event is handled within a second or two by a running consumer; what waits behind it follows.
A discarded event never has its effect in its group.

DATABASE_URL names the database."""


def _letter_id(value: str) -> int:
    if not value.isdecimal() or not 1 <= int(value[:20]) <= ID_MAX:
        raise argparse.ArgumentTypeError("an id is a whole number, as `holdfast dlq list` shows it")
    return int(value)


def _time(value: str) -> datetime:
    try:
        time = datetime.fromisoformat(value)
        return time.replace(tzinfo=time.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError("a time is written like 2026-01-31T12:00:00Z") from None


def _parser() -> Parser:
    parser = Parser(
        prog="holdfast dlq",
        description="Events whose handling failed for good.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="show the letters that wait")
    show = commands.add_parser("show", help="show one with its error and stack")
    show.add_argument("id", type=_letter_id, help="the letter's id")
    retry = commands.add_parser("retry", help="have letters tried again, after a fix")
    discard = commands.add_parser("discard", help="have their events left out, for good")
    for command in (retry, discard):
        command.add_argument("ids", nargs="*", type=_letter_id, metavar="ID", help="the letters' ids")
    for command in (listing, retry, discard):
        command.add_argument("--group", help="only those of this consumer group")
        command.add_argument("--type", help="only events of this type, e.g. order.confirmed.v1")
        command.add_argument("--subject", metavar="PREFIX", help="only subjects that begin like this")
        command.add_argument("--kind", choices=(FAILED, UNKNOWN), help="only failures, or types nobody knew")
        command.add_argument("--since", type=_time, metavar="T", help="only what first failed then or later")
        command.add_argument("--until", type=_time, metavar="T", help="only what first failed before (UTC)")
        command.add_argument("--all", action="store_true", help="every one")
    for command in (listing, show, retry, discard):
        command.add_argument("--json", action="store_true", help="answer in JSON")
    return parser


async def _list(letters: DeadLetters, asked: argparse.Namespace) -> int:
    states = STATES if asked.all else WAITING
    found: list[DeadLetter] = []
    while True:
        after = found[-1].id if found else 0
        page = await letters.page(after, PAGE_SIZE_MAX, _chosen(asked), states=states)
        found += page
        if len(page) < PAGE_SIZE_MAX:
            break
    if asked.json:
        _print([document(letter) for letter in found])
        return 0
    for letter in found:
        where = f"{letter.consumer_group}  {letter.subject}:{letter.sequence}  {letter.type}"
        first_line = letter.error.splitlines()[0] if letter.error else ""
        _say(f"{letter.id}  {letter.state:9}  {where}  attempts={letter.attempts}  {first_line[:200]}")
    if not found:
        _say("there are no dead letters" if asked.all else "no dead letter waits")
    return 0


async def _show(letters: DeadLetters, asked: argparse.Namespace) -> int:
    letter = await letters.one(asked.id)
    if letter is None:
        _say(f"holdfast dlq: there is no dead letter {asked.id}", sys.stderr)
        return 1
    if asked.json:
        _print(document(letter))
        return 0
    _say(
        f"id        {letter.id}\nstate     {letter.state} ({letter.kind})\ngroup     {letter.consumer_group}"
    )
    _say(f"event     {letter.subject}:{letter.sequence}  {letter.type}\nattempts  {letter.attempts}")
    _say(f"first     {letter.first_at:%Y-%m-%d %H:%M:%S%z}\nlast      {letter.last_at:%Y-%m-%d %H:%M:%S%z}")
    _say(f"error     {letter.error}\n\n{letter.stack}")
    return 0


def _chosen(asked: argparse.Namespace, ids: list[int] | None = None) -> Chosen:
    return Chosen(
        ids=None if ids is None else tuple(ids),
        group=asked.group,
        type=asked.type,
        subject=asked.subject,
        kind=asked.kind,
        since=asked.since,
        until=asked.until,
    )


async def _retry(letters: DeadLetters, asked: argparse.Namespace) -> int:
    return _tell(asked, await _decided(letters.retry, asked), "retried")


async def _discard(letters: DeadLetters, asked: argparse.Namespace) -> int:
    return _tell(asked, await _decided(letters.discard, asked), "discarded")


async def _decided(
    decide: Callable[[Chosen, int], Awaitable[list[int]]], asked: argparse.Namespace
) -> list[int]:
    """Decide about everything that is meant, a bounded number at a time; which letters they were."""
    chosen = _chosen(asked, asked.ids or None)
    done: list[int] = []
    while True:
        some = await decide(chosen, done[-1] if done else 0)
        done += some
        if len(some) < DECIDED_MAX:
            return done


def _tell(asked: argparse.Namespace, done: list[int], what: str) -> int:
    """Say which were meant; 1 when a letter that was named does not wait."""
    missing = sorted(set(asked.ids) - set(done))
    if asked.json:
        _print({what: [str(x) for x in done], "not_waiting": [str(x) for x in missing]})
    else:
        _say(f"{len(done)} will be {what}")
        for letter_id in missing:
            _say(f"holdfast dlq: {letter_id} does not wait, or is another group's or type's", sys.stderr)
    return 1 if missing else 0


def _print(value: object) -> None:
    _say(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _say(line: str, to: TextIO | None = None) -> None:
    print(line, file=to or sys.stdout)


_COMMANDS: Final[dict[str, Callable[[DeadLetters, argparse.Namespace], Awaitable[int]]]] = {
    "list": _list,
    "show": _show,
    "retry": _retry,
    "discard": _discard,
}


async def _run(dsn: str, environment: str, asked: argparse.Namespace) -> int:
    database = await Database(dsn, size=1, name="dlq").open()
    try:
        await marker.refuse_for(database, environment, changes=asked.command in {"retry", "discard"})
        return await _COMMANDS[asked.command](DeadLetters(database), asked)
    finally:
        await database.close()


def main(argv: list[str]) -> int:
    """List, show, retry or discard the dead letters in the database that DATABASE_URL names."""
    parser = _parser()
    asked = parser.parse_args(argv)
    if asked.command in {"retry", "discard"}:
        named = any(getattr(asked, name) is not None for name in _CONDITIONS)
        if not (asked.ids or named or asked.all):
            parser.error(f"{asked.command} needs ids, a condition like --group or --type, or --all")
        if asked.ids and (named or asked.all):
            parser.error("give ids, or conditions, or --all")
    settings = config.load("tool")
    return run("dlq", _run(settings.database_url, settings.environment, asked))
