"""The bodies that callers send, and the documents that are not an order's. Their limits are in their types.

Patterns are written so that they mean the same in Python and in the published JSON Schema.
"""

from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

from app.domain.catalogue import Product, SkuStock
from app.domain.money import AMOUNT_MAX, Money
from app.domain.ports import Address

_NAME: Final = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_ATOM: Final = "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL: Final = "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?"

CustomerId: TypeAlias = Annotated[str, Meta(pattern=_NAME, examples=["cust-1042"])]
Sku: TypeAlias = Annotated[str, Meta(pattern=f"^(?!ord_){_NAME[1:]}", examples=["tea-earl-grey"])]
Warehouse: TypeAlias = Annotated[str, Meta(pattern=_NAME, examples=["east"])]
Currency: TypeAlias = Annotated[str, Meta(pattern="^[A-Z]{3}$", description="ISO 4217.", examples=["USD"])]
Amount: TypeAlias = Annotated[int, Meta(ge=0, le=AMOUNT_MAX, description="Minor units.", examples=[1467])]
Quantity: TypeAlias = Annotated[int, Meta(ge=1, le=100_000, examples=[2])]
Text: TypeAlias = Annotated[str, Meta(min_length=1, max_length=500)]
Email: TypeAlias = Annotated[
    str,
    Meta(
        # One @, and nothing that could end a header or begin another address in it, not even encoded (`=?`).
        pattern=f"^(?!.*=\\?)(?=[^@]{{1,64}}@){_ATOM}(\\.{_ATOM})*@{_LABEL}(\\.{_LABEL})*$",
        max_length=254,
        description="Where the customer is told what becomes of the order; without it nobody is told.",
        examples=["ada@example.com"],
    ),
]
Short: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200)]


class _Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every body shares: a field nobody knows is a mistake, not decoration."""


class MoneyBody(_Body, frozen=True):
    """An amount in minor units (cents, for USD) with its currency."""

    amount: Amount
    currency: Currency

    @property
    def money(self) -> Money:
        """The domain's own."""
        return Money(self.amount, self.currency)


class LineBody(_Body, frozen=True):
    """So many pieces of one SKU."""

    sku: Sku
    quantity: Quantity


class AddressBody(_Body, frozen=True):
    """Where the parcels go."""

    name: Short
    line1: Short
    city: Short
    postal_code: Annotated[str, Meta(min_length=1, max_length=20)]
    country: Annotated[str, Meta(pattern="^[A-Z]{2}$", description="ISO 3166-1 alpha-2.", examples=["US"])]
    line2: Short | None = None
    phone: Annotated[str, Meta(min_length=1, max_length=40)] | None = None
    email: Email | None = None

    @property
    def address(self) -> Address:
        """The domain's own."""
        return Address(
            self.name,
            self.line1,
            self.city,
            self.postal_code,
            self.country,
            self.line2,
            self.phone,
            self.email,
        )


Metadata: TypeAlias = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=40)], Annotated[str, Meta(max_length=500)]],
    Meta(max_length=50, description="Whatever you want to find again.", examples=[{"cart": "c-77"}]),
]


class OrderBody(_Body, frozen=True):
    """An order. Prices come from the catalogue; `expected_total` guards against one that moved."""

    customer_id: CustomerId
    currency: Currency
    lines: Annotated[list[LineBody], Meta(min_length=1, max_length=1000)]
    payment_method: (
        Annotated[
            str,
            Meta(
                pattern="^[A-Za-z0-9_]{1,255}$",
                description="The payment provider's token; needed where the order costs anything.",
                examples=["pm_card_visa"],
            ),
        ]
        | None
    ) = None
    shipping_address: AddressBody | None = None
    on_shortage: Literal["reject"] = "reject"
    expected_total: MoneyBody | None = None
    metadata: Metadata | None = None


class CancelBody(_Body, frozen=True):
    """Why it is cancelled; it stays with the order and goes nowhere else."""

    reason: Annotated[str, Meta(max_length=500, examples=["ordered twice"])] | None = None


class ProductBody(_Body, frozen=True):
    """What a product is called and costs. `sku`, where given, is the one in the path."""

    name: Annotated[str, Meta(min_length=1, max_length=200, examples=["Earl Grey, 100 g"])]
    price: MoneyBody
    sku: Sku | None = None


class AdjustmentBody(_Body, frozen=True):
    """So many pieces more, or fewer; a new name makes a new warehouse."""

    warehouse: Warehouse
    delta: Annotated[int, Meta(ge=-1_000_000_000, le=1_000_000_000, examples=[25])]
    reason: Annotated[str, Meta(min_length=1, max_length=500, examples=["stocktaking"])]


class CarrierEventBody(msgspec.Struct, frozen=True):
    """What the carrier reports; fields that it adds one day are ignored."""

    type: Annotated[str, Meta(min_length=1, max_length=100, examples=["shipment.delivered"])]
    reference: Annotated[str, Meta(min_length=1, max_length=100, description="Our fulfilment's id.")]
    tracking_number: Annotated[str, Meta(max_length=100)] | None = None
    occurred_at: Annotated[str, Meta(max_length=64)] | None = None


class CarrierAnswer(msgspec.Struct, frozen=True):
    """What became of a report: `recorded`, or `ignored` because repeating it could never change anything."""

    outcome: Literal["recorded", "ignored"]
    detail: str


class ProductDocument(msgspec.Struct, frozen=True):
    """A product."""

    sku: str
    name: str
    price: Money


class ShelfDocument(msgspec.Struct, frozen=True):
    """Pieces of one SKU in one warehouse. What was shipped has left `on_hand`."""

    warehouse: str
    on_hand: int
    reserved: int
    available: int


class StockDocument(msgspec.Struct, frozen=True):
    """Pieces of one SKU, warehouse by warehouse; `available` is what nobody has reserved."""

    sku: str
    available: int
    warehouses: list[ShelfDocument]


def product_document(product: Product) -> ProductDocument:
    """A product as its readers see it."""
    return ProductDocument(product.sku, product.name, product.price)


def stock_document(stock: SkuStock) -> StockDocument:
    """Stock as its readers see it."""
    shelves = [ShelfDocument(w.warehouse, w.on_hand, w.reserved, w.available) for w in stock.warehouses]
    return StockDocument(stock.sku, stock.available, shelves)
