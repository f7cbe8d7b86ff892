"""Random walks of one order through its world: steps that overlap, die half-way, come back late."""

import hypothesis.strategies as st
import msgspec
from hypothesis import event, given, settings

from app.domain.decide import evolve_all
from app.domain.events import OrderEvent
from tests.unit.orders import free, placed
from tests.unit.world import Shelf, Step, World, forget_notes

AMPLE = {("cup", "east"): 9, ("spoon", "east"): 2, ("spoon", "west"): 9, ("leaflet", "east"): 9}
WHOLE = 12
"""More pauses than any step has."""

ACTIONS = st.tuples(
    st.sampled_from(
        ["next"] * 9
        + ["go_on"] * 5
        + ["deliver", "undo"] * 2
        + ["die", "cancel", "capture_by_hand", "reprice"]
        + ["reserve", "authorize", "book", "release", "capture"]
        + [
            "undo_without_money",
            "undo_without_stock",
        ]  # a worker with a defect: the domain does not let it close
    ),
    st.sampled_from([WHOLE, WHOLE, 0, 1, 2, 3]),
    st.integers(0, 3),
)
"""What is done, how far a step gets with it, and which of those under way is meant."""


class Walk:
    """An order in its world, and the steps that somebody has begun and not finished."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.pieces = {place: shelf.on_hand for place, shelf in world.shelves.items()}
        self.accepted = world.order
        self.running: list[Step] = []

    def do(self, action: str, pauses: int, which: int) -> None:
        """One thing happens."""
        match action:
            case "cancel" | "deliver" | "capture_by_hand" | "reprice":
                getattr(self.world, action)()
            case "die" if self.running:
                self.running.pop(which % len(self.running))
            case "go_on" if self.running:
                self._go_on(self.running.pop(which % len(self.running)), pauses)
            case "go_on" | "die":
                pass
            case _:
                name = self.world.next_step() if action == "next" else action
                self._go_on(self.world.steps()[name](), pauses)
        self.world.check(self.pieces)

    def _go_on(self, step: Step, pauses: int) -> None:
        for _ in range(pauses):
            if next(step, "ended") == "ended":
                return
            self.world.check(self.pieces)
        self.running.append(step)

    def tell_from_the_beginning(self) -> None:
        """The events tell the whole story: out of their stored bytes, from zero."""
        events = tuple(msgspec.json.decode(stored.data, type=OrderEvent) for stored in self.world.history)
        told = evolve_all(self.accepted, events, self.world.order.updated_at)
        assert forget_notes(told) == forget_notes(self.world.order)

    def come_to_an_end(self) -> None:
        """One worker takes over what the others left, and follows the rules."""
        for _ in range(20):
            self.do(self.world.next_step(), WHOLE, 0)
            self.do("deliver", 0, 0)
        assert self.world.order.is_final, self.world.order


@settings(max_examples=400, deadline=None)
@given(
    costs=st.sampled_from([True, True, False]),
    stock=st.just(AMPLE)
    | st.just(AMPLE)
    | st.dictionaries(st.sampled_from(sorted(AMPLE)), st.integers(0, 9)),
    card_is_good=st.sampled_from([True, True, True, False]),
    undeliverable=st.sampled_from([None, None, None, 1, 2]),
    actions=st.lists(ACTIONS, min_size=6, max_size=40),
)
def test_whatever_happens_the_promises_hold_and_there_is_a_way_to_an_end(
    costs, stock, card_is_good, undeliverable, actions
):
    """Two workers, a customer, a carrier and a provider, in any order, killed anywhere."""
    shelves = {place: Shelf(pieces) for place, pieces in stock.items()}
    walk = Walk(World(placed() if costs else free(), shelves, card_is_good, undeliverable))
    for action in actions:
        walk.do(*action)
    event(f"came as far as {walk.world.order.status}")
    walk.tell_from_the_beginning()
    walk.come_to_an_end()
    event(f"ended {walk.world.order.status}")
    while walk.running:  # and whoever still sleeps wakes up when all is over
        walk.do("go_on", WHOLE, 0)
    walk.tell_from_the_beginning()
