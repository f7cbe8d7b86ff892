"""Reading orders: one, a list, the history of one. A key that is bound to a customer sees only that one's."""

from typing import Final

import msgspec

from app.contracts import streams
from app.contracts.documents import EventPage, OrderDocument, Page, document, rfc3339
from app.domain.ids import NAME, ORDER_ID
from app.domain.order import Status
from app.gateway.deadlines import within
from app.gateway.exchange import Call, Reply
from app.gateway.live_routes import follow_order, sequence_of, wants_stream
from app.gateway.parameters import cursor_of, encode_cursor, limit_of, query, time_of
from app.gateway.problems import not_found, wrong_parameter
from app.gateway.services import Services
from app.infra.postgres.api_keys import ApiKey
from app.infra.postgres.order_lists import StoredEvent, Wanted

READ_DEADLINE_S: Final = 2.5
SEQUENCE_DIGITS_MAX: Final = 9


_encoder: Final = msgspec.json.Encoder()


async def get_order(services: Services, call: Call) -> Reply:
    """`GET /v1/orders/{order_id}`: one order, or 304 where the caller has it already."""
    identity = call.order_id = call.parameters["order_id"]
    if not ORDER_ID.match(identity):
        raise not_found("such order")
    try:
        record = services.cached.near(identity) or await services.cached.fetch(identity)
    except LookupError:
        raise not_found("such order") from None
    if not _may_see(call.caller, record.customer_id):
        raise not_found("such order")
    if _matches(call.header(b"if-none-match"), record.etag.decode()):
        return Reply(304, b"", record.headers)
    return Reply(200, record.body, record.headers)


async def list_orders(services: Services, call: Call) -> Reply:
    """`GET /v1/orders`: orders, newest first."""
    given = query(call, "customer_id", "status", "created_after", "created_before", "cursor", "limit")
    customer = given.get("customer_id")
    if customer is not None and not NAME.match(customer):
        raise wrong_parameter("customer_id", "It has to be letters, digits and . _ - (at most 64).")
    status = given.get("status")
    if status is not None and status not in set(Status):
        raise wrong_parameter("status", "It has to be one of " + ", ".join(Status) + ".")
    limit = limit_of(given)
    wanted = Wanted(
        customer_id=customer,
        status=None if status is None else Status(status),
        created_after=time_of(given, "created_after"),
        created_before=time_of(given, "created_before"),
        before_id=cursor_of(given, "orders", ORDER_ID.match),
    )
    bound = call.caller.customer_id if call.caller else None
    if bound is not None and customer not in {None, bound}:
        return Reply(200, _encoder.encode(Page[OrderDocument]([], None)))
    if bound is not None:
        wanted = msgspec.structs.replace(wanted, customer_id=bound)
    found = await within(READ_DEADLINE_S, services.lists.page(wanted, limit + 1))
    more = encode_cursor("orders", found[limit - 1].id) if len(found) > limit else None
    return Reply(200, _encoder.encode(Page([document(order) for order in found[:limit]], more)))


async def list_events(services: Services, call: Call) -> Reply:
    """`GET /v1/orders/{order_id}/events`: what happened to an order, or, as a stream, what happens."""
    if wants_stream(call):
        return await follow_order(services, call)
    identity = call.parameters["order_id"]
    given = query(call, "cursor", "limit", "after")
    limit = limit_of(given)
    after = int(cursor_of(given, "events", _is_sequence) or 0)
    if given.get("after"):
        after = max(after, sequence_of("after", given["after"], identity))
    owner = await _owner(services, identity)
    if owner is None or not _may_see(call.caller, owner):
        raise not_found("such order")
    found = await within(READ_DEADLINE_S, services.lists.events(identity, after=after, limit=limit + 1))
    more = encode_cursor("events", str(found[limit - 1].sequence)) if len(found) > limit else None
    items = [_envelope(event, services.environment) for event in found[:limit]]
    through = 0
    if not found or found[0].sequence > after + 1:
        through = await within(READ_DEADLINE_S, services.lists.archived_through(identity))
    archived = through if through > after else msgspec.UNSET
    return Reply(200, _encoder.encode(EventPage(items, more, archived)))


async def _owner(services: Services, identity: str) -> str | None:
    if not ORDER_ID.match(identity):
        return None
    return await within(READ_DEADLINE_S, services.lists.customer(identity))


def _envelope(event: StoredEvent, environment: str) -> streams.Envelope:
    return streams.Envelope(
        id=f"{event.subject}:{event.sequence}",
        type=event.type,
        source=streams.source(environment),
        subject=event.subject,
        time=rfc3339(event.time),
        sequence=event.sequence,
        correlationid=event.correlation_id,
        data=msgspec.Raw(event.data.encode()),
        traceparent=event.traceparent,
    )


def _may_see(caller: ApiKey | None, customer_id: str) -> bool:
    return caller is not None and caller.customer_id in {None, customer_id}


def _matches(if_none_match: str | None, tag: str) -> bool:
    """Whether one of the caller's tags is this one; a weak tag of the same text counts (RFC 9110)."""
    if if_none_match is None:
        return False
    tags = {given.strip().removeprefix("W/") for given in if_none_match.split(",")}
    return tag in tags or "*" in tags


def _is_sequence(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= SEQUENCE_DIGITS_MAX
