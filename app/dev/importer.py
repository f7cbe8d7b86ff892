"""`holdfast import FILE`: place a purchase log as orders, wait until they are settled, and print the audit.

An import that is cut short (Ctrl-C, a kill, a gateway that stays away) is gone on with by the same command:
every line keeps its idempotency key until the import was finished, so nothing is placed twice. The same
command after a finished import places the purchases again, as new orders. Exit codes: 0 it adds up, 1 it does
not (or a line cannot be read), 64 wrong usage, 69 the gateway is unreachable.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path
from typing import Any, Final

import httpx
import msgspec
import uvloop

from app.dev.importing import shelves, show
from app.dev.importing.api import Api, Going, RefusedError
from app.dev.importing.audit import Audit, Books, audit
from app.dev.importing.client import Client
from app.dev.importing.journal import Journal
from app.dev.importing.placing import REQUESTS_MAX, Orders
from app.dev.importing.purchases import BadLineError, Purchase, read
from app.dev.importing.target import Target, find
from app.dev.sandbox.audit import PaymentsAudit, audit_payments
from app.dev.stack.errors import FAILED, USAGE, StackError
from app.dev.stack.folder import DEFAULT
from app.usage import Parser

OPEN_MAX: Final = 64
PATIENCE_S: Final = 120.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be imported, where, and how."""

    target: Target
    purchases: list[Purchase]
    data_dir: Path = DEFAULT
    open_max: int = OPEN_MAX
    per_second: float | None = None
    patience_s: float = PATIENCE_S
    again: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """The audit, and how long it took from the first order placed to the last one settled, in seconds."""

    run: str
    audit: Audit
    seconds: float

    def document(self) -> dict[str, Any]:
        """The outcome as it is printed with --json."""
        settled = sum(self.audit.statuses.values())
        return {
            "ok": not self.audit.findings,
            "run": self.run,
            **msgspec.to_builtins(self.audit),
            "seconds": round(self.seconds, 3),
            "orders_per_second": round(settled / self.seconds, 2) if self.seconds else None,
        }


def main(argv: list[str]) -> int:
    """Import a file; the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        plan = _plan(arguments)
        shown = show.shown_on(sys.stderr if arguments.json else sys.stdout, len(plan.purchases))
        try:
            outcome = uvloop.run(run(plan, shown))
        finally:
            shown.close()
    except BadLineError as error:
        return _fail(f"{arguments.file}, {error}", FAILED)
    except StackError as error:
        return _fail(str(error), error.exit_code)
    except RefusedError as error:
        return _fail(f"The gateway refused to set up products and stock: {error}", FAILED)
    except OSError as error:
        return _fail(f"{error.filename or 'a file'}: {error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        return _fail("Interrupted. Run the same command again to go on.", FAILED)
    if arguments.json:
        print(msgspec.json.encode(outcome.document()).decode())
    else:
        show.table(outcome.audit, outcome.seconds, sys.stdout)
    return FAILED if outcome.audit.findings else 0


def _fail(text: str, code: int) -> int:
    print(f"holdfast import: {text}", file=sys.stderr)
    return code


def _parser() -> Parser:
    parser = Parser(
        prog="holdfast import",
        description="Place a purchase log as orders, wait until they are settled, and print the audit.",
        epilog="A log has 4 columns (customer, date, number, dollars) or 5 (a second customer number before "
        "the date); a header line is skipped. The same command goes on with an import that was cut short.",
    )
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--rate", type=_positive, metavar="N", help="place at most N orders a second")
    parser.add_argument("--limit", type=_count, metavar="N", help="import only the first N purchases")
    parser.add_argument(
        "--concurrency",
        type=_count,
        default=OPEN_MAX,
        metavar="N",
        help="orders that are placed and not yet settled at once (%(default)s)",
    )
    parser.add_argument("--again", action="store_true", help="begin anew where an import was cut short")
    parser.add_argument("--url", metavar="U", help="the gateway (default: the stack that runs here)")
    parser.add_argument("--api-key", metavar="K", help="its API key")
    parser.add_argument("--data-dir", type=Path, default=DEFAULT, metavar="D", help="default: %(default)s")
    parser.add_argument(
        "--timeout",
        type=_positive,
        default=PATIENCE_S,
        metavar="S",
        help="give up after S seconds in which nothing went on (%(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="print the audit as JSON")
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"it has to be a whole number from 1, not {text!r}")
    return int(text)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError(f"it has to be a number above 0, not {text!r}")
    return number


def _plan(arguments: argparse.Namespace) -> Plan:
    purchases = read(arguments.file, arguments.limit)
    if not purchases:
        raise StackError(f"{arguments.file} holds no purchases.")
    return Plan(
        target=find(arguments.data_dir, arguments.url, arguments.api_key),
        purchases=purchases,
        data_dir=arguments.data_dir,
        open_max=arguments.concurrency,
        per_second=arguments.rate,
        patience_s=arguments.timeout,
        again=arguments.again,
    )


async def run(plan: Plan, shown: show.Show) -> Outcome:
    """Import. Raises StackError, RefusedError and OSError."""
    going = Going(plan.patience_s)
    try:
        client = Client(plan.target.url, plan.target.api_key, REQUESTS_MAX + 1)
    except ValueError as error:
        raise StackError(str(error), USAGE) from error
    try:
        return await _run(plan, shown, going, Api(client, going))
    finally:
        await client.close()


async def _run(plan: Plan, shown: show.Show, going: Going, api: Api) -> Outcome:
    await api.greet()
    wanted = shelves.demand(plan.purchases)
    shown.say(f"{len(plan.purchases):,} purchases of {len(wanted):,} prices go to {plan.target.url}")
    journal = Journal(plan.data_dir, plan.target.url, plan.purchases)
    this, goes_on = await shelves.prepare(api, journal, wanted, again=plan.again)
    if goes_on:
        shown.say("going on with an import that was cut short; use --again to begin anew")
    orders = Orders(api, going, this.name, open_max=plan.open_max, show=shown.count)
    started = time.monotonic()
    placing = asyncio.create_task(orders.place_all(plan.purchases, plan.per_second))
    try:
        await orders.settle(placing)
    finally:
        placing.cancel()
        await asyncio.gather(placing, return_exceptions=True)
    seconds = time.monotonic() - started
    found = audit(
        Books(
            purchases=plan.purchases,
            placed=orders.placed,
            settled=orders.settled,
            refused=orders.refused,
            demand=wanted,
            before=this.before,
            after=await shelves.pieces(api, wanted),
            provider=await _provider(plan.target),
        )
    )
    journal.forget()
    return Outcome(this.name, found, seconds)


async def _provider(target: Target) -> PaymentsAudit | None:
    """The provider's own books, where they are ours to read."""
    if target.sandbox is None:
        return None
    try:
        return await audit_payments(target.sandbox)
    except httpx.HTTPError as error:
        raise StackError(f"The sandbox provider does not answer: {error!r}") from error
