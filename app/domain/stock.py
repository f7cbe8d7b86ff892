"""Stock: which warehouse sends what. Pure arithmetic; the numbers come locked from PostgreSQL."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from app.domain.events import Line
from app.domain.fulfilment import FulfilmentLine, FulfilmentPlan
from app.domain.ids import fulfilment_id


class Shortage(msgspec.Struct, frozen=True):
    """The SKUs of which there is not enough."""

    skus: tuple[str, ...]


Availability = Mapping[str, Sequence[tuple[str, int]]]
"""SKU → (warehouse, pieces that nobody has reserved), as locked."""


def demand(lines: Iterable[Line]) -> dict[str, int]:
    """Pieces wanted of each SKU, in sorted order (everybody locks in this order)."""
    wanted: Counter[str] = Counter()
    for line in lines:
        wanted[line.sku] += line.quantity
    return dict(sorted(wanted.items()))


def allocate(
    order: str, lines: Iterable[Line], available: Availability
) -> tuple[FulfilmentPlan, ...] | Shortage:
    """Plan the parcels of an order: as few as a simple rule finds, all lines or none.

    One warehouse that can send everything sends everything. Otherwise the warehouse that covers the most
    pieces of what is still wanted takes what it has, then the next. Ties go by name, so that the same
    numbers always give the same plan.
    """
    wanted = demand(lines)
    short = tuple(
        sku for sku, quantity in wanted.items() if sum(n for _, n in available.get(sku, ())) < quantity
    )
    if short:
        return Shortage(short)
    free: dict[str, dict[str, int]] = {}
    for sku in wanted:
        for warehouse, pieces in available[sku]:
            if pieces > 0:
                free.setdefault(warehouse, {})[sku] = pieces
    plans: list[FulfilmentPlan] = []
    while wanted:
        warehouse = min(free, key=lambda name: (-_covered(wanted, free[name]), name))
        shelf = free.pop(warehouse)
        taken = {sku: min(quantity, shelf[sku]) for sku, quantity in wanted.items() if shelf.get(sku)}
        plans.append(
            FulfilmentPlan(
                fulfilment_id(order, len(plans) + 1),
                warehouse,
                tuple(FulfilmentLine(sku, quantity) for sku, quantity in taken.items()),
            )
        )
        wanted = {sku: rest for sku, quantity in wanted.items() if (rest := quantity - taken.get(sku, 0))}
    return tuple(plans)


def _covered(wanted: Mapping[str, int], shelf: Mapping[str, int]) -> int:
    """How many wanted pieces one warehouse could send."""
    return sum(min(quantity, shelf.get(sku, 0)) for sku, quantity in wanted.items())
