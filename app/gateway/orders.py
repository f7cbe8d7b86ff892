"""Taking and cancelling orders: decode, decide, delegate. Plain functions; nothing here knows a framework.

If the process dies before the commit, nothing happened; after it, the order is accepted whatever dies next,
and the same key answers with the same bytes.
"""

import asyncio
import secrets
from datetime import UTC, datetime
from time import monotonic
from typing import Final

import msgspec
from msgspec.structs import replace

from app.contracts.documents import encode_order, etag
from app.domain.commands import PlaceOrder, WantedLine
from app.domain.errors import Fault, Refusal, Refused, Unavailable
from app.domain.ids import ORDER_ID, order_id
from app.domain.order import Order
from app.domain.place import INVALID, place, sold_out
from app.gateway.admission import Admitted
from app.gateway.bodies import check_is_json, decode, read_body
from app.gateway.deadlines import Patience, within
from app.gateway.exchange import Call, Reply
from app.gateway.idempotency import key_of, reply_of, request_of
from app.gateway.messages import CancelBody, OrderBody
from app.gateway.problems import ProblemError, not_found
from app.gateway.services import Services
from app.gateway.waiting import wanted_wait_s
from app.infra.postgres.api_keys import ApiKey
from app.infra.postgres.intake import Answer, Request

WRITE_DEADLINE_S: Final = 2.5

_patience: Final = Patience(WRITE_DEADLINE_S)
_order_decoder: Final = msgspec.json.Decoder(OrderBody)
_cancel_decoder: Final = msgspec.json.Decoder(CancelBody)


async def place_order(services: Services, call: Call) -> Reply:
    """`POST /v1/orders`: take an order, or say why not."""
    caller = _caller(call)
    services.admissions.check_order(caller)
    try:
        request, wanted = await _wanted(call, caller)
        command = _command(wanted)
    except (ProblemError, Refused):
        call.limits = await services.admissions.other(caller, call.method)
        raise
    try:
        # Everything in here is asked together with others': who stops waiting disturbs nobody.
        with _patience.hold():
            answer, order = await _accept(services, call, request, wanted, command)
    except TimeoutError:
        raise Unavailable("postgres", f"no answer within {WRITE_DEADLINE_S:g} s") from None
    if order is None:
        return reply_of(answer)
    call.order_id = order.id
    # Its document is not shown: nothing older is there, and it will have changed before it is read.
    services.hint_orders()
    wait_s = wanted_wait_s(call.header(b"prefer"))
    return await _awaited(services, order, answer, wait_s) if wait_s else reply_of(answer)


async def _wanted(call: Call, caller: ApiKey) -> tuple[Request, OrderBody]:
    """What is asked for, and the key it is asked under. Raises ProblemError and Refused."""
    key = key_of(call)
    check_is_json(call)
    body = await read_body(call)
    wanted = decode(_order_decoder, body)
    if caller.customer_id not in {None, wanted.customer_id}:
        detail = "The API key orders for another customer."
        raise ProblemError("forbidden", detail, (Fault("/customer_id", detail),))
    return request_of(caller, "POST /v1/orders", key, body), wanted


async def _accept(
    services: Services, call: Call, request: Request, wanted: OrderBody, command: PlaceOrder
) -> tuple[Answer, Order | None]:
    """Admit, price and accept; the answer, with the order unless the key was used before.

    Raises ProblemError and Refused.
    """
    lines = [(line.sku, line.quantity) for line in command.lines]
    admitted = await services.admissions.order(_caller(call), request, lines)
    call.limits = admitted.headers
    if admitted.replay is not None:
        return admitted.replay, None
    if admitted.sold_out:
        return await _stored(services, request, sold_out(command, admitted.sold_out)), None
    try:
        return await _placed(services, call, request, wanted, command, admitted)
    except (Unavailable, asyncio.CancelledError):
        services.admissions.look_again(admitted)
        raise


async def _placed(
    services: Services,
    call: Call,
    request: Request,
    wanted: OrderBody,
    command: PlaceOrder,
    admitted: Admitted,
) -> tuple[Answer, Order | None]:
    """Price and accept what was admitted; as `_accept`."""
    lines = [(line.sku, line.quantity) for line in command.lines]
    catalogue = await services.catalogue.products(dict(lines), with_stock=not admitted.gate_known)
    at = datetime.now(UTC)
    identity = order_id(int(at.timestamp() * 1000), secrets.token_bytes(10))
    placed = place(command, identity, catalogue, call.correlation_id, at)
    if isinstance(placed, Refusal):
        services.admissions.give_back(admitted)
        return await _stored(services, request, placed), None
    order, event = placed
    if wanted.metadata:
        order = replace(order, metadata=wanted.metadata)
    answer = await services.intake.accept(
        request,
        order,
        event,
        Answer(202, f"/v1/orders/{order.id}", encode_order(order)),
        address=wanted.shipping_address.address if wanted.shipping_address else None,
        traceparent=call.traceparent,
    )
    services.admissions.remember(request, answer)
    if answer.replayed:
        services.admissions.give_back(admitted)
        return answer, None
    return answer, order


async def _stored(services: Services, request: Request, refusal: Refusal) -> Answer:
    """The answer of an earlier request with this key; raises Refused where there was none.

    The world may have changed since this very request was accepted: a repetition is not a new order.
    """
    stored = await services.intake.answered(request)
    if stored is None:
        raise Refused(refusal)
    return stored


def _command(wanted: OrderBody) -> PlaceOrder:
    """The domain's command. Raises Refused where the expected total is in another currency."""
    expected = wanted.expected_total
    if expected is not None and expected.currency != wanted.currency:
        fault = Fault("/expected_total/currency", f"The order is in {wanted.currency}.")
        raise Refused(Refusal(INVALID, "The expected total is in another currency.", (fault,)))
    return PlaceOrder(
        wanted.customer_id,
        wanted.currency,
        tuple(WantedLine(line.sku, line.quantity) for line in wanted.lines),
        wanted.payment_method,
        expected.amount if expected else None,
    )


async def _awaited(services: Services, order: Order, answer: Answer, wait_s: int) -> Reply:
    """The order once it is confirmed or final (200), else the first answer (202)."""
    applied = (b"preference-applied", b"wait=%d" % wait_s)
    found = await services.watch.settled(order.id, wait_s)
    first = reply_of(answer)
    if found is None:
        return replace(first, headers=(*first.headers, applied))
    settled, as_of = found
    await services.cached.show(settled, as_of=as_of)  # whoever reads it next sees nothing older
    tag = (b"etag", etag(settled.version, settled.waiting_on).encode())
    return Reply(200, encode_order(settled), (*first.headers, tag, applied))


async def cancel_order(services: Services, call: Call) -> Reply:
    """`POST /v1/orders/{order_id}/cancel`: stop an order, if it is not too late."""
    caller = _caller(call)
    identity = call.order_id = call.parameters["order_id"]
    key = key_of(call)
    body = await read_body(call)
    wanted = CancelBody()
    if body:
        check_is_json(call)
        wanted = decode(_cancel_decoder, body)
    request = request_of(caller, f"POST /v1/orders/{identity}/cancel", key, body)
    try:
        return await within(WRITE_DEADLINE_S, _cancel(services, caller, identity, request, wanted.reason))
    except LookupError:
        raise not_found("such order") from None


async def _cancel(
    services: Services, caller: ApiKey, identity: str, request: Request, reason: str | None
) -> Reply:
    """Raises LookupError where the caller sees no such order."""
    if not ORDER_ID.match(identity):
        raise LookupError(identity)
    if caller.customer_id and await services.lists.customer(identity) != caller.customer_id:
        raise LookupError(identity)
    as_of = monotonic()
    answer, order = await services.intake.cancel(request, identity, reason, encode_order)
    if order is not None:
        services.hint_orders()
        await services.cached.show(order, as_of=as_of)
    return reply_of(answer)


def _caller(call: Call) -> ApiKey:
    assert call.caller is not None, "the route names a scope"
    return call.caller
