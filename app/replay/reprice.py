"""`Reprice`: orders of a span of time reckoned again under a corrected price list, shown, and then adjusted.

It reads the orders that were accepted in the span, page by page, and puts on record what each affected one
comes to and would come to. Before the first is adjusted all are looked at again: every order must still come
to what was shown, and no order may have become affected. Only a replay of a price list moves what an order
comes to, and only one is applied at a time, so nothing can move between that look and the last adjustment;
and each adjustment is checked against what was shown once more, by the domain, on the locked order.

An order is adjusted in one transaction with its event and with how far the replay is. If the process dies
here, the batch never happened, and whoever goes on begins with it.
"""

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, Final

import msgspec

from app.contracts import price_lists
from app.contracts.documents import rfc3339
from app.contracts.price_lists import LIST_NAME, ListedPrice, PriceList, WrongPriceList
from app.domain import events as e
from app.domain.errors import Fault, Refusal, Refused, Unavailable
from app.domain.money import Money
from app.domain.place import INVALID
from app.infra.postgres import replays, repricing, repricing_spans
from app.infra.postgres.pool import Connection
from app.infra.postgres.replays import Asked, Change, Replay
from app.infra.postgres.repricing import reckon
from app.infra.redis.documents import Documents
from app.observability.logging import logger
from app.replay.asking import refused
from app.replay.handlers import MovedError, Read

CHANGES_AT_ONCE: Final = 250
DOCUMENTS_DEADLINE_S: Final = 1.0
LEFT_OUT_SHOWN: Final = 5
"""How many of the orders that cannot be adjusted are named, of each reason."""

_ACCEPTED: Final = e.TYPES[e.OrderAccepted]

log = logger("replay")


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked with: the prices as they should have been, and what the list is called."""

    prices: list[ListedPrice]
    price_list: str = "prices"


class Reprice:
    """The handler `reprice`."""

    name: Final = "reprice"
    about: Final = "reckon orders again under a corrected price list, and adjust those that differ"
    isolation: Final = "read_committed"
    locks: Final[tuple[str, ...]] = ()
    changes_at_once: Final = CHANGES_AT_ONCE

    def __init__(self, documents: Documents | None = None) -> None:
        """Show adjusted orders to their readers through these; None where replays are only asked for."""
        self._documents = documents

    def check(self, asked: Asked) -> None:
        """Prices, and orders by the time of their acceptance. Raises Refused."""
        if asked.selection.type not in {None, _ACCEPTED}:
            raise refused("/type", f"Orders are found by their {_ACCEPTED}; leave `type` out.")
        _price_list(asked.parameters)

    async def prepare(self, connection: Connection, replay: Replay) -> int:
        """Fix the span; how many orders were accepted in it."""
        wanted = replay.selection
        span = await repricing_spans.begin(connection, replay.id, wanted.since, wanted.until, wanted.order_id)
        return (await span.count()).orders

    async def read(self, connection: Connection, replay: Replay, size: int) -> Read:
        """The next orders of the span, and which of them differ."""
        prices = _price_list(replay.parameters).prices
        span, _ = await _begun(connection, replay)
        page = await span.page(replay.cursor or "", size)
        affected = [listed.order_id for listed in page if not listed.skus.isdisjoint(prices)]
        changes: list[Change] = []
        left_out: list[tuple[str, str, str]] = []
        for found in await reckon(connection, affected, prices) if affected else ():
            if isinstance(found.outcome, Refusal):
                left_out.append((found.order.id, found.outcome.code, found.outcome.detail))
            elif found.outcome.lines:
                changes.append(
                    replays.change(
                        {"order": found.order.id, "currency": found.order.currency},
                        {"total": found.outcome.before},
                        {"total": found.outcome.after},
                    )
                )
        await span.leave_out(left_out)
        return Read(page[-1].order_id if len(page) == size else None, len(page), changes)

    async def compare(self, connection: Connection, replay: Replay) -> dict[str, Any]:
        """The sums by currency, and what was left out."""
        span, _ = await _begun(connection, replay)
        left_out = await span.left_out(LEFT_OUT_SHOWN)
        return {
            "price_list": _price_list(replay.parameters).name,
            "accepted_before": rfc3339(span.until),
            "orders": replay.done,
            "affected": replay.changes,
            "sums": await replays.sums(connection, replay.id, ("currency",)),
            "left_out": {each.code: each.orders for each in left_out},
            "left_out_first": [words for each in left_out for words in each.first],
        }

    async def verify(self, connection: Connection, replay: Replay, changes: Sequence[Change]) -> None:
        """Whether each order still comes to what was shown, and no other has become affected."""
        if changes and changes[0].number == 1:
            await _verify_span(connection, replay)
        prices = _price_list(replay.parameters).prices
        shown = {change.order_id: change for change in map(_shown, changes)}
        for found in await reckon(connection, list(shown), prices):
            outcome, change = found.outcome, shown.pop(found.order.id)
            if isinstance(outcome, Refusal):
                raise MovedError(f"{found.order.id}: {outcome.detail}")
            if (outcome.before, outcome.after) != (change.before, change.after):
                raise MovedError(
                    f"{found.order.id} would go from {outcome.before} to {outcome.after} now, "
                    f"not from {change.before} to {change.after}."
                )
        if shown:
            raise MovedError(f"{min(shown)} is not there any more.")

    async def apply(
        self, connection: Connection, replay: Replay, changes: Sequence[Change]
    ) -> dict[str, Any]:
        """Adjust these orders, exactly as it was shown. Raises MovedError."""
        try:
            await repricing.adjust_all(
                connection, replay.id, _price_list(replay.parameters), map(_shown, changes)
            )
        except Refused as moved:
            raise MovedError(moved.refusal.detail) from moved
        return {}

    async def tell(self, connection: Connection, before: Replay, after: Replay) -> None:
        """Write the documents of adjusted orders: those of final ones would be read for an hour as they were.

        Where Redis is away, the consumers write them with the events.
        """
        if self._documents is None or after.applied <= before.applied:
            return
        made = await replays.changes_behind(
            connection, before.id, before.applied, after.applied - before.applied
        )
        as_of = monotonic()
        orders = await repricing.read(connection, [change.key["order"] for change in made])
        try:
            await self._documents.put_all(orders, as_of=as_of, deadline_s=DOCUMENTS_DEADLINE_S)
        except Unavailable as error:
            log.warning("documents_not_written", replay=before.id, error=str(error))

    async def forget(self, connection: Connection, replay: Replay) -> None:
        """What was left out and why stays on record beside the changes."""


async def _begun(connection: Connection, replay: Replay) -> tuple[repricing_spans.RepricingSpan, int]:
    wanted = replay.selection
    return await repricing_spans.begun(connection, replay.id, wanted.since, wanted.order_id)


async def _verify_span(connection: Connection, replay: Replay) -> None:
    """Whether the span holds the same orders, and nothing has moved what any of them comes to."""
    span, adjustments = await _begun(connection, replay)
    now = await span.count()
    if now.orders != replay.done:
        raise MovedError(f"{now.orders} orders were accepted in that time, and {replay.done} were read.")
    if now.adjustments != adjustments:
        raise MovedError("Another price list was applied to orders of that time: show this one again.")


def _shown(change: Change) -> repricing.Change:
    assert change.before is not None
    assert change.after is not None
    return repricing.Change(change.key["order"], change.before["total"], change.after["total"])


def _price_list(parameters: Mapping[str, Any]) -> PriceList:
    """The price list that a replay was asked with. Raises Refused, naming every place that is wrong."""
    if "prices" not in parameters:
        raise refused("/parameters/prices", "A corrected price list is needed (`--prices FILE`).")
    try:
        given = msgspec.convert(parameters, Parameters)
    except msgspec.ValidationError as error:
        raise refused("/parameters", f"{error}.") from None
    if not LIST_NAME.match(given.price_list):
        detail = "A price list's name is letters, digits, spaces and . _ - (at most 64)."
        raise refused("/parameters/price_list", detail)
    try:
        prices: dict[str, Money] = price_lists.check(given.prices)
    except WrongPriceList as wrong:
        faults = tuple(Fault(f"/parameters/prices{x.pointer}", x.detail) for x in wrong.faults)
        raise Refused(Refusal(INVALID, "There is something wrong with the prices.", faults)) from None
    return PriceList(given.price_list, prices)
