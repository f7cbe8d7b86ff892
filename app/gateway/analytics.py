"""What happened minute by minute: orders, money, rejections, changes of price. Counted by the consumers."""

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from app.contracts.documents import Page, rfc3339
from app.domain.money import Money
from app.gateway.auth import refuse_customers
from app.gateway.deadlines import within
from app.gateway.exchange import Call, Reply
from app.gateway.parameters import cursor_of, encode_cursor, limit_of, query, time_of
from app.gateway.services import Services
from app.infra.postgres import analytics
from app.infra.postgres.analytics import Minute

DEADLINE_S: Final = 2.5
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE_DIGITS_MAX: Final = 9

_encoder: Final = msgspec.json.Encoder()


class MinuteDocument(msgspec.Struct, frozen=True):
    """One minute (UTC) in which something happened, by the time at which it happened.

    `orders` were accepted in it; the other counts are of orders that came so far in it. `revenue` was
    captured, `refunds` went back; `rejections` are by the code of their reason. `price_adjustments` were put
    on record for orders sold at a wrong price, `price_adjusted` is what they changed in sum: below zero,
    customers were asked for too much. Nothing of it has moved.
    """

    minute: str
    orders: int
    confirmed: int
    dispatched: int
    completed: int
    rejected: int
    cancelled: int
    revenue: list[Money]
    refunds: list[Money]
    rejections: dict[str, int]
    price_changes: int
    price_adjustments: int
    price_adjusted: list[Money]


async def list_minutes(services: Services, call: Call) -> Reply:
    """`GET /v1/analytics/minutely`: minutes in which anything happened, oldest first."""
    refuse_customers(call)
    given = query(call, "from", "to", "cursor", "limit")
    limit = limit_of(given)
    since, until = time_of(given, "from"), time_of(given, "to")
    after = cursor_of(given, "minutes", _is_minute)
    last = _EPOCH + timedelta(minutes=int(after)) if after else None
    found = await within(DEADLINE_S, services.analytics.minutes(since, until, last, limit + 1))
    more = None
    if len(found) > limit:
        more = encode_cursor("minutes", str((found[limit - 1].minute - _EPOCH) // timedelta(minutes=1)))
    return Reply(200, _encoder.encode(Page([minute_document(minute) for minute in found[:limit]], more)))


def minute_document(minute: Minute) -> MinuteDocument:
    """A minute as its readers see it."""
    orders = minute.of(analytics.ORDERS)
    return MinuteDocument(
        minute=rfc3339(minute.minute),
        orders=orders.get("accepted", 0),
        confirmed=orders.get("confirmed", 0),
        dispatched=orders.get("dispatched", 0),
        completed=orders.get("completed", 0),
        rejected=orders.get("rejected", 0),
        cancelled=orders.get("cancelled", 0),
        revenue=_money(minute.of(analytics.REVENUE)),
        refunds=_money(minute.of(analytics.REFUNDS)),
        rejections=minute.of(analytics.REJECTIONS),
        price_changes=minute.of(analytics.PRICE_CHANGES).get("", 0),
        price_adjustments=minute.of(analytics.PRICE_ADJUSTMENTS).get("", 0),
        price_adjusted=_money(minute.of(analytics.PRICE_ADJUSTED)),
    )


def _money(amounts: dict[str, int]) -> list[Money]:
    return [Money(amount, currency) for currency, amount in sorted(amounts.items())]


def _is_minute(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MINUTE_DIGITS_MAX
