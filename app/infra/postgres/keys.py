"""`holdfast keys`: make, list and revoke API keys. A new key is printed once and stored as a hash only."""

import argparse
import sys
from collections.abc import Awaitable, Callable
from typing import Final, TextIO

import msgspec

from app import config
from app.domain.ids import NAME
from app.infra.postgres import marker
from app.infra.postgres.api_keys import SCOPES, SCOPES_OF_CUSTOMERS, ApiKeys, new_key
from app.infra.postgres.command import run
from app.infra.postgres.pool import Database
from app.usage import Parser

KEY_NAME_MAX: Final = 100
RATE_MAX_PER_S: Final = 1_000_000


def _scopes(value: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    if not set(names) <= set(SCOPES):
        raise argparse.ArgumentTypeError("it must be a comma list of " + ", ".join(SCOPES))
    return names


def _customer(value: str) -> str:
    if not NAME.match(value):
        raise argparse.ArgumentTypeError("a customer id is letters, digits and . _ - (at most 64)")
    return value


def _name(value: str) -> str:
    if not value.isprintable() or not 0 < len(value) <= KEY_NAME_MAX:
        raise argparse.ArgumentTypeError(f"a name is 1 to {KEY_NAME_MAX} printable characters")
    return value


def _rate(value: str) -> int:
    if not value.isdecimal() or not 1 <= int(value) <= RATE_MAX_PER_S:
        raise argparse.ArgumentTypeError(f"a rate is a whole number from 1 to {RATE_MAX_PER_S}")
    return int(value)


_EPILOG: Final = f"""\
options of create:
  --name NAME          what the key is for (needed)
  --scopes A,B,…       what it may do; without it all of these, or all that a customer's key makes sense with:
                       {", ".join(SCOPES[:4])},
                       {", ".join(SCOPES[4:7])},
                       {", ".join(SCOPES[7:])}
  --customer ID        bind it to one customer: it orders for that one and sees nobody else's orders
  --rate N             let it read N times a second, and write as often, whatever RATE_LIMIT_PER_S says
options of all three:
  --json               answer in JSON

DATABASE_URL names the database; ENVIRONMENT, where it is set, becomes part of a new key."""


def _parser() -> Parser:
    parser = Parser(
        prog="holdfast keys",
        description="API keys of the gateway.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    create = commands.add_parser("create", help="make a key and print it, once")
    create.add_argument("--name", required=True, type=_name, help="what it is for")
    create.add_argument(
        "--scopes",
        type=_scopes,
        metavar="A,B,…",
        help=f"what it may do: a comma list of {', '.join(SCOPES)} "
        f"(default: all of them; with --customer: {', '.join(SCOPES_OF_CUSTOMERS)})",
    )
    create.add_argument(
        "--customer",
        type=_customer,
        metavar="ID",
        help="bind it to one customer: it orders for that one and sees nobody else's orders",
    )
    create.add_argument(
        "--rate",
        type=_rate,
        metavar="N",
        help="let it read N times a second and write as often (default: the gateway's RATE_LIMIT_PER_S)",
    )
    listing = commands.add_parser("list", help="show all keys (never the keys themselves)")
    revoke = commands.add_parser("revoke", help="close a key for good; gateways notice within seconds")
    revoke.add_argument("id", help="the key's id (key_…)")
    for command in (create, listing, revoke):
        command.add_argument("--json", action="store_true", help="answer in JSON")
    return parser


async def _create(keys: ApiKeys, asked: argparse.Namespace) -> int:
    key = new_key(asked.environment)
    scopes = asked.scopes or (SCOPES_OF_CUSTOMERS if asked.customer else SCOPES)
    identity = await keys.add(
        key, name=asked.name, scopes=scopes, customer_id=asked.customer, rate_limit_per_s=asked.rate
    )
    if asked.json:
        made = {"id": identity, "key": key, "scopes": scopes, "customer_id": asked.customer}
        _print({**made, "rate_limit_per_s": asked.rate})
    else:
        _say(f"{identity} {key}")
        _say("Keep it now: it is not shown again.", sys.stderr)
    return 0


async def _list(keys: ApiKeys, asked: argparse.Namespace) -> int:
    found = await keys.list()
    if asked.json:
        _print(found)
        return 0
    for key in found:
        state = f"revoked {key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else "open"
        bound = f" customer={key.customer_id}" if key.customer_id else ""
        rate = f" rate={key.rate_limit_per_s}/s" if key.rate_limit_per_s else ""
        _say(f"{key.id}  {state:24}  {key.name}{bound}{rate}  {','.join(key.scopes)}")
    return 0


async def _revoke(keys: ApiKeys, asked: argparse.Namespace) -> int:
    done = await keys.revoke(asked.id)
    if asked.json:
        _print({"id": asked.id, "revoked": done})
    elif done:
        _say(f"{asked.id} is revoked")
    else:
        _say(f"holdfast keys: there is no open key {asked.id}", sys.stderr)
    return 0 if done else 1


def _print(value: object) -> None:
    _say(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def _say(line: str, to: TextIO | None = None) -> None:
    print(line, file=to or sys.stdout)


_COMMANDS: Final[dict[str, Callable[[ApiKeys, argparse.Namespace], Awaitable[int]]]] = {
    "create": _create,
    "list": _list,
    "revoke": _revoke,
}


async def _run(dsn: str, environment: str, asked: argparse.Namespace) -> int:
    database = await Database(dsn, size=1, name="keys").open()
    try:
        await marker.refuse_for(database, environment, changes=asked.command != "list")
        return await _COMMANDS[asked.command](ApiKeys(database), asked)
    finally:
        await database.close()


def main(argv: list[str]) -> int:
    """Make, list or revoke keys in the database that DATABASE_URL names."""
    asked = _parser().parse_args(argv)
    settings = config.load("tool")
    asked.environment = settings.environment
    return run("keys", _run(settings.database_url, settings.environment, asked))
