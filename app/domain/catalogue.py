"""Products: what can be ordered, and at which price."""

import msgspec

from app.domain.money import Money


class Product(msgspec.Struct, frozen=True):
    """One SKU. `available` is how many pieces nobody has reserved, over all warehouses, when it was read."""

    sku: str
    name: str
    price: Money
    available: int = 0


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
