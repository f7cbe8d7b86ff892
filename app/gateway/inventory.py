"""Stock: what is on hand, reserved and available, and adjustments by people and warehouses."""

from typing import Final

import msgspec

from app.contracts.documents import Page
from app.domain.catalogue import SkuStock
from app.domain.errors import Fault, Refusal, Refused
from app.domain.place import INVALID
from app.gateway.bodies import check_is_json, decode, read_body
from app.gateway.deadlines import within
from app.gateway.exchange import Call, Reply
from app.gateway.idempotency import key_of, reply_of, request_of
from app.gateway.messages import AdjustmentBody, stock_document
from app.gateway.parameters import cursor_of, encode_cursor, limit_of, query
from app.gateway.problems import not_found
from app.gateway.products import is_sku
from app.gateway.services import Services
from app.infra.postgres.catalogue import Adjustment, Cause

DEADLINE_S: Final = 2.5

_decoder: Final = msgspec.json.Decoder(AdjustmentBody)
_encoder: Final = msgspec.json.Encoder()


async def get_stock(services: Services, call: Call) -> Reply:
    """`GET /v1/inventory/{sku}`: the stock of one SKU."""
    sku = call.parameters["sku"]
    stock = await within(DEADLINE_S, services.catalogue.stock(sku)) if is_sku(sku) else None
    if stock is None:
        raise not_found("product with this SKU")
    return Reply(200, _encode(stock))


async def list_stock(services: Services, call: Call) -> Reply:
    """`GET /v1/inventory`: the stock of all SKUs, by SKU."""
    given = query(call, "cursor", "limit")
    limit = limit_of(given)
    after = cursor_of(given, "inventory", is_sku) or ""
    found = await within(DEADLINE_S, services.catalogue.stock_after(after, limit + 1))
    more = encode_cursor("inventory", found[limit - 1].sku) if len(found) > limit else None
    return Reply(200, _encoder.encode(Page([stock_document(x) for x in found[:limit]], more)))


async def adjust_stock(services: Services, call: Call) -> Reply:
    """`POST /v1/inventory/{sku}/adjustments`: pieces came, went, or were counted anew."""
    assert call.caller is not None, "the route names a scope"
    sku = call.parameters["sku"]
    key = key_of(call)
    check_is_json(call)
    body = await read_body(call)
    wanted = decode(_decoder, body)
    if not wanted.delta:
        fault = Fault("/delta", "An adjustment by nothing is none.")
        raise Refused(Refusal(INVALID, fault.detail, (fault,)))
    if not is_sku(sku):
        raise not_found("product with this SKU")
    request = request_of(call.caller, f"POST /v1/inventory/{sku}/adjustments", key, body)
    adjustment = Adjustment(sku, wanted.warehouse, wanted.delta, wanted.reason)
    cause = Cause(call.correlation_id, call.traceparent)
    try:
        answer = await within(DEADLINE_S, services.catalogue.adjust(request, adjustment, cause, _encode))
    except LookupError:
        raise not_found("product with this SKU") from None
    if not answer.replayed:
        services.hint_events()
        await services.gate.changed(sku, wanted.delta)
    return reply_of(answer)


def _encode(stock: SkuStock) -> bytes:
    return _encoder.encode(stock_document(stock))
