"""Which warehouse sends what: all or nothing, no more than there is, the same each time, in few parcels."""

from collections import Counter

import hypothesis.strategies as st
from hypothesis import given

from app.domain.events import Line
from app.domain.fulfilment import FulfilmentLine, FulfilmentPlan
from app.domain.ids import FULFILMENT_ID, fulfilment_id, order_of_fulfilment
from app.domain.stock import Availability, Shortage, allocate, demand
from tests.unit.orders import ID, line

SKUS = ["cup", "knife", "spoon"]
HOUSES = ["east", "north", "south", "west"]

lines_of_orders = st.lists(st.builds(line, st.sampled_from(SKUS), st.integers(1, 6)), min_size=1, max_size=6)
shelves = st.dictionaries(
    st.sampled_from(SKUS),
    st.dictionaries(st.sampled_from(HOUSES), st.integers(0, 8)).map(lambda found: sorted(found.items())),
)


@st.composite
def enough(draw: st.DrawFn) -> tuple[list[Line], Availability]:
    """Lines, and shelves that hold them somehow."""
    lines = draw(lines_of_orders)
    available = {}
    for sku, quantity in demand(lines).items():
        found = dict.fromkeys(HOUSES, 0) | dict(draw(shelves).get(sku, ()))
        found[draw(st.sampled_from(HOUSES))] += max(0, quantity - sum(found.values()))
        available[sku] = sorted(found.items())
    return lines, available


def planned(lines: list[Line], available: Availability) -> tuple[FulfilmentPlan, ...]:
    """The parcels of an order that is not short."""
    plans = allocate(ID, lines, available)
    assert not isinstance(plans, Shortage)
    return plans


def sent(plans: tuple[FulfilmentPlan, ...]) -> Counter[tuple[str, str]]:
    """Pieces by SKU and warehouse."""
    return Counter({(x.sku, plan.warehouse): x.quantity for plan in plans for x in plan.lines})


@given(lines_of_orders, shelves)
def test_an_order_gets_all_it_wants_or_nothing(lines, available):
    """A shortage names exactly the SKUs of which there is too little, in sorted order."""
    plans = allocate(ID, lines, available)
    wanted = demand(lines)
    short = [sku for sku in SKUS if wanted.get(sku, 0) > sum(n for _, n in available.get(sku, ()))]
    if isinstance(plans, Shortage):
        assert list(plans.skus) == short
        return
    assert short == []
    for sku, quantity in wanted.items():
        assert sum(x.quantity for plan in plans for x in plan.lines if x.sku == sku) == quantity


@given(enough())
def test_no_warehouse_sends_more_than_it_has(situation):
    """Nor anything that nobody wants, nor nothing of something."""
    lines, available = situation
    for (sku, warehouse), pieces in sent(planned(lines, available)).items():
        assert 0 < pieces <= dict(available[sku])[warehouse]


@given(lines_of_orders, shelves, st.randoms())
def test_the_same_numbers_give_the_same_plan(lines, available, random):
    """Neither the order of the lines nor that of the shelves matters."""
    shuffled = {sku: random.sample(found, len(found)) for sku, found in available.items()}
    shuffled = dict(random.sample(list(shuffled.items()), len(shuffled)))
    assert allocate(ID, random.sample(lines, len(lines)), shuffled) == allocate(ID, lines, available)


@given(enough())
def test_parcels_are_numbered_from_one_and_none_is_empty(situation):
    """One parcel a warehouse, one line a SKU; each id leads back to its order."""
    plans = planned(*situation)
    assert [plan.id for plan in plans] == [fulfilment_id(ID, n + 1) for n in range(len(plans))]
    assert len({plan.warehouse for plan in plans}) == len(plans)
    for plan in plans:
        assert FULFILMENT_ID.match(plan.id)
        assert order_of_fulfilment(plan.id) == ID
        assert plan.lines
        assert len({x.sku for x in plan.lines}) == len(plan.lines)


@given(enough())
def test_one_parcel_is_enough_when_one_warehouse_has_everything(situation):
    """The customer opens one door once."""
    lines, available = situation
    wanted = demand(lines)
    whole = [h for h in HOUSES if all(dict(available[sku])[h] >= n for sku, n in wanted.items())]
    if whole:
        assert [plan.warehouse for plan in planned(lines, available)] == whole[:1]


@given(enough())
def test_each_parcel_takes_as_much_as_any_other_could(situation):
    """So there are few; where two could take as much, the name decides."""
    lines, available = situation
    left, houses = Counter(demand(lines)), set(HOUSES)
    for plan in planned(lines, available):
        could = {h: sum(min(n, dict(available[sku])[h]) for sku, n in left.items()) for h in houses}
        takes = Counter({x.sku: x.quantity for x in plan.lines})
        assert takes.total() == could[plan.warehouse] == max(could.values())
        assert plan.warehouse == min(h for h in houses if could[h] == takes.total())
        left -= takes
        houses.remove(plan.warehouse)
    assert left.total() == 0


def test_lines_of_one_sku_are_wanted_together():
    """Two lines of three are six pieces, in one line of the parcel."""
    plans = allocate(ID, [line("cup", 3), line("cup", 3)], {"cup": [("east", 5), ("west", 6)]})
    assert plans == (FulfilmentPlan(f"ful_{ID[4:]}_1", "west", (FulfilmentLine("cup", 6),)),)
    assert allocate(ID, [line("cup", 3), line("cup", 3)], {"cup": [("east", 5)]}) == Shortage(("cup",))


def test_what_one_warehouse_lacks_another_adds():
    """The one that covers most goes first; ties go by name."""
    available = {"cup": [("a", 3), ("b", 2)], "spoon": [("b", 1)]}
    plans = planned([line("cup", 4), line("spoon", 1)], available)
    assert sent(plans) == {("cup", "a"): 3, ("cup", "b"): 1, ("spoon", "b"): 1}
    assert [plan.warehouse for plan in plans] == ["a", "b"]


def test_an_unknown_sku_is_short():
    """A product that no warehouse has ever held."""
    assert allocate(ID, [line("cup", 1)], {}) == Shortage(("cup",))


def test_everybody_locks_in_the_same_order():
    """The demand is sorted by SKU, whatever the order of the lines."""
    assert list(demand([line("spoon", 1), line("cup", 2), line("spoon", 2)]).items()) == [
        ("cup", 2),
        ("spoon", 3),
    ]
