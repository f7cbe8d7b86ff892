"""Products: what can be ordered, and at which price."""

from typing import Final

import msgspec

from app.domain.errors import Refusal
from app.domain.money import Money

STOCK_RESERVED: Final = "stock-reserved"
STOCK_FULL: Final = "stock-full"
ON_HAND_MAX: Final = 10**12
"""Pieces that one shelf can hold: far beyond any warehouse, far below what a bigint can add up."""


class Product(msgspec.Struct, frozen=True):
    """One SKU. `available` is how many pieces nobody had reserved when it was read; None: nobody looked."""

    sku: str
    name: str
    price: Money
    available: int | None = 0


class WarehouseStock(msgspec.Struct, frozen=True):
    """Pieces of one SKU in one warehouse. What was shipped has left `on_hand`."""

    warehouse: str
    on_hand: int
    reserved: int

    @property
    def available(self) -> int:
        """Pieces that nobody has reserved."""
        return self.on_hand - self.reserved


class SkuStock(msgspec.Struct, frozen=True):
    """Pieces of one SKU, warehouse by warehouse."""

    sku: str
    warehouses: tuple[WarehouseStock, ...]

    @property
    def available(self) -> int:
        """Pieces that nobody has reserved, over all warehouses."""
        return sum(w.available for w in self.warehouses)


def adjust(shelf: WarehouseStock, delta: int) -> WarehouseStock | Refusal:
    """The shelf after `delta` pieces came (or, below zero, went). What is reserved cannot be taken away."""
    on_hand = shelf.on_hand + delta
    if on_hand < shelf.reserved:
        detail = (
            f"{shelf.warehouse} has {shelf.on_hand} on hand, {shelf.reserved} of them reserved: "
            f"at most {shelf.available} can be taken away."
        )
        return Refusal(STOCK_RESERVED, detail)
    if on_hand > ON_HAND_MAX:
        return Refusal(STOCK_FULL, f"One warehouse holds at most {ON_HAND_MAX} pieces of a SKU.")
    return WarehouseStock(shelf.warehouse, on_hand, shelf.reserved)
