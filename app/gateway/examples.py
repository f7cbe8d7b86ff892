"""Examples for the OpenAPI document, made by the code that makes the real thing, so that they cannot lag."""

from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from app.contracts import streams
from app.contracts.documents import OrderDocument, Page, document, rfc3339
from app.domain.catalogue import Product, SkuStock, WarehouseStock
from app.domain.chain import chain
from app.domain.commands import PlaceOrder, WantedLine
from app.domain.errors import Refusal
from app.domain.ids import order_id
from app.domain.money import Money
from app.domain.place import place
from app.gateway import messages
from app.gateway.health import Health

_AT: Final = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
_PRODUCT: Final = Product("tea-earl-grey", "Earl Grey, 100 g", Money(1467, "USD"), 40)
_CORRELATION: Final = "checkout-7f3a"
_COMMAND: Final = PlaceOrder("cust-1042", "USD", (WantedLine(_PRODUCT.sku, 2),), "pm_card_visa", 2934)


def _order() -> tuple[OrderDocument, streams.Envelope]:
    identity = order_id(int(_AT.timestamp() * 1000), bytes(range(10)))
    placed = place(_COMMAND, identity, {_PRODUCT.sku: _PRODUCT}, _CORRELATION, _AT)
    assert not isinstance(placed, Refusal)
    order, event = placed
    linked = chain(None, order.id, 0, (event,), _AT, _CORRELATION, None)[0]
    envelope = streams.Envelope(
        id=f"{order.id}:1",
        type=linked.type,
        source=streams.source("dev"),
        subject=order.id,
        time=rfc3339(_AT),
        sequence=1,
        correlationid=_CORRELATION,
        data=msgspec.Raw(linked.data.encode()),
    )
    return document(replace(order, metadata={"cart": "c-77"})), envelope


_ORDER, _EVENT = _order()
ORDER_ID: Final = _ORDER.id
_PRODUCT_DOCUMENT: Final = messages.product_document(_PRODUCT)
_STOCK: Final = messages.stock_document(
    SkuStock(_PRODUCT.sku, (WarehouseStock("east", 25, 2), WarehouseStock("west", 17, 0)))
)

EXAMPLES: Final = MappingProxyType(
    {
        messages.OrderBody: messages.OrderBody(
            customer_id="cust-1042",
            currency="USD",
            lines=[messages.LineBody("tea-earl-grey", 2)],
            payment_method="pm_card_visa",
            shipping_address=messages.AddressBody("Ada L.", "12 St James's Sq", "London", "SW1Y 4LB", "GB"),
            expected_total=messages.MoneyBody(2934, "USD"),
            metadata={"cart": "c-77"},
        ),
        messages.CancelBody: messages.CancelBody("ordered twice"),
        messages.ProductBody: messages.ProductBody("Earl Grey, 100 g", messages.MoneyBody(1467, "USD")),
        messages.AdjustmentBody: messages.AdjustmentBody("east", 25, "delivery 8841"),
        messages.CarrierEventBody: messages.CarrierEventBody(
            "shipment.delivered", f"ful_{ORDER_ID.removeprefix('ord_')}_1", "TRK1", rfc3339(_AT)
        ),
        messages.CarrierAnswer: messages.CarrierAnswer("recorded", "The delivery is on record."),
        messages.ProductDocument: _PRODUCT_DOCUMENT,
        messages.StockDocument: _STOCK,
        OrderDocument: _ORDER,
        Page[OrderDocument]: Page([_ORDER], None),
        Page[streams.Envelope]: Page([_EVENT], None),
        Page[messages.ProductDocument]: Page([_PRODUCT_DOCUMENT], None),
        Page[messages.StockDocument]: Page([_STOCK], None),
        Health: Health("ok", {"postgres": "ok"}),
    }
)
"""One example of every body and document."""


def example_of(kind: Any) -> Any:  # noqa: ANN401 - plain JSON
    """The example of a type, as plain JSON without the fields that are not said."""
    shown = msgspec.json.decode(msgspec.json.encode(EXAMPLES[kind]))
    if kind.__name__.endswith("Body"):
        return _said(shown)
    return shown


def _said(value: Any) -> Any:  # noqa: ANN401
    """Without nulls: a caller leaves out what it does not say."""
    if isinstance(value, dict):
        return {name: _said(item) for name, item in value.items() if item is not None}
    return [_said(item) for item in value] if isinstance(value, list) else value
