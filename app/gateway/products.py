"""The catalogue: products and their prices. A changed price is an event of the SKU."""

from typing import Final

import msgspec

from app.contracts.documents import Page
from app.domain.errors import Fault, Refusal, Refused
from app.domain.ids import NAME
from app.domain.place import INVALID
from app.gateway.bodies import check_is_json, decode, read_body
from app.gateway.deadlines import within
from app.gateway.exchange import Call, Reply
from app.gateway.messages import ProductBody, product_document
from app.gateway.parameters import cursor_of, encode_cursor, limit_of, query
from app.gateway.problems import not_found
from app.gateway.services import Services
from app.infra.postgres.catalogue import Cause

DEADLINE_S: Final = 2.5
ORDER_PREFIX: Final = "ord_"
"""SKUs do not start like an order's id, because both are subjects of events."""

_decoder: Final = msgspec.json.Decoder(ProductBody)
_encoder: Final = msgspec.json.Encoder()


def is_sku(text: str) -> bool:
    """Whether a product may be called this."""
    return bool(NAME.match(text)) and not text.startswith(ORDER_PREFIX)


async def get_product(services: Services, call: Call) -> Reply:
    """`GET /v1/products/{sku}`: one product."""
    sku = call.parameters["sku"]
    product = await within(DEADLINE_S, services.catalogue.product(sku)) if is_sku(sku) else None
    if product is None:
        raise not_found("product with this SKU")
    return Reply(200, _encoder.encode(product_document(product)))


async def list_products(services: Services, call: Call) -> Reply:
    """`GET /v1/products`: products by SKU."""
    given = query(call, "cursor", "limit")
    limit = limit_of(given)
    after = cursor_of(given, "products", is_sku) or ""
    found = await within(DEADLINE_S, services.catalogue.products_after(after, limit + 1))
    more = encode_cursor("products", found[limit - 1].sku) if len(found) > limit else None
    return Reply(200, _encoder.encode(Page([product_document(x) for x in found[:limit]], more)))


async def put_product(services: Services, call: Call) -> Reply:
    """`PUT /v1/products/{sku}`: make a product, or change its name or price."""
    sku = call.parameters["sku"]
    check_is_json(call)
    wanted = decode(_decoder, await read_body(call))
    fault = None
    if not is_sku(sku):
        fault = Fault(
            "/sku", "A SKU is letters, digits and . _ - (at most 64), and does not start with ord_."
        )
    elif wanted.sku not in {None, sku}:
        fault = Fault("/sku", f"The path says {sku}.")
    if fault:
        raise Refused(Refusal(INVALID, fault.detail, (fault,)))
    cause = Cause(call.correlation_id, call.traceparent)
    change = services.catalogue.put(sku, wanted.name, wanted.price.money, cause)
    product, new = await within(DEADLINE_S, change)
    services.hint_events()
    body = _encoder.encode(product_document(product))
    return Reply(201, body, ((b"location", f"/v1/products/{sku}".encode()),)) if new else Reply(200, body)
