"""Shelves: what is on hand, what is reserved of it, and what may be taken away."""

import hypothesis.strategies as st
from hypothesis import given

from app.domain.catalogue import ON_HAND_MAX, STOCK_FULL, STOCK_RESERVED, SkuStock, WarehouseStock, adjust
from app.domain.errors import Refusal

shelves = st.integers(0, 100).flatmap(
    lambda on_hand: st.builds(WarehouseStock, st.just("east"), st.just(on_hand), st.integers(0, on_hand))
)


@given(shelves, st.integers(-200, 200))
def test_what_is_reserved_cannot_be_taken_away(shelf: WarehouseStock, delta: int):
    """Everything else can; and what comes is there."""
    after = adjust(shelf, delta)
    if shelf.available + delta < 0:
        assert isinstance(after, Refusal)
        assert after.code == STOCK_RESERVED
        assert f"at most {shelf.available} can" in after.detail
    else:
        assert after == WarehouseStock("east", shelf.on_hand + delta, shelf.reserved)


def test_a_shelf_has_an_end():
    """Beyond any warehouse, and below what the database can add up."""
    assert adjust(WarehouseStock("east", 0, 0), ON_HAND_MAX) == WarehouseStock("east", ON_HAND_MAX, 0)
    for delta in (1, 2**62, 10**30):
        refusal = adjust(WarehouseStock("east", ON_HAND_MAX, 0), delta)
        assert isinstance(refusal, Refusal)
        assert refusal.code == STOCK_FULL
    assert ON_HAND_MAX * 1000 < 2**63


@given(st.lists(shelves))
def test_a_sku_has_what_its_shelves_have(found: list[WarehouseStock]):
    """Available is on hand without what is reserved, over all warehouses."""
    expected = sum(shelf.on_hand for shelf in found) - sum(shelf.reserved for shelf in found)
    assert SkuStock("cup", tuple(found)).available == expected
