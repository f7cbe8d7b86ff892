"""A small world around one order: shelves, a payment provider, a carrier, a database, and the steps between.

A step is a generator that pauses wherever a process may die or another one may come in between: before and
after every word with the outside. Whoever drives it may leave it paused for as long as he likes, or for ever.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from msgspec.structs import replace

from app.domain import chain
from app.domain import commands as c
from app.domain import events as e
from app.domain.decide import decide, evolve_all, live, note
from app.domain.errors import Refusal
from app.domain.fulfilment import FulfilmentStatus
from app.domain.ids import fulfilment_id
from app.domain.money import Money
from app.domain.order import Order, Status, StockStatus
from app.domain.payment import PaymentStatus
from app.domain.reprice import reprice
from app.domain.stock import Shortage, allocate
from tests.unit.orders import ID, LATER, REASON

Step = Iterator[None]
GIVEN_UP = {Status.CANCELLING, Status.CANCELLED, Status.REJECTED}


@dataclass
class Shelf:
    """Pieces of one SKU in one warehouse."""

    on_hand: int
    reserved: int = 0


@dataclass
class World:
    """Everything outside the order, and the order."""

    order: Order
    shelves: dict[tuple[str, str], Shelf]
    card_is_good: bool = True
    undeliverable: int | None = None
    """The number of the fulfilment that the carrier will not take."""
    history: list[chain.LinkedEvent] = field(default_factory=list)
    """What followed its acceptance, as it is stored."""
    intents: dict[str, str] = field(default_factory=dict)
    """The provider's: intent → unconfirmed, authorized, captured, refunded, voided, declined."""
    shipments: dict[str, str] = field(default_factory=dict)
    """The carrier's: fulfilment → booked, released, delivered, cancelled."""
    gives_up: bool = False
    """Whether a step said for good that the order cannot be carried out."""

    # the database: each of these is one transaction

    def record(self, command: c.Command) -> Order | Refusal:
        """Decide and write."""
        decision = decide(self.order, command)
        if isinstance(decision, Refusal):
            return decision
        self._write(decision)
        self.order = evolve_all(note(self.order, command), decision, LATER)
        return self.order

    def _write(self, events: tuple[e.OrderEvent, ...]) -> None:
        previous = self.history[-1].hash if self.history else None
        version = self.order.version
        self.history += chain.chain(previous, ID, version, events, LATER, "cor_1", None)
        for event in events:
            if isinstance(event, e.InventoryReserved | e.InventoryReleased | e.InventoryShipped):
                self._move_stock(event)

    def _move_stock(self, event: e.InventoryReserved | e.InventoryReleased | e.InventoryShipped) -> None:
        for plan in event.fulfilments:
            for line in plan.lines:
                shelf = self.shelves[line.sku, plan.warehouse]
                shelf.reserved += line.quantity if isinstance(event, e.InventoryReserved) else -line.quantity
                shelf.on_hand -= line.quantity if isinstance(event, e.InventoryShipped) else 0

    # the way forward

    def reserve(self) -> Step:
        """One transaction: all lines or none, and none means rejected."""
        if self.order.status is Status.ACCEPTED and self.order.stock is StockStatus.NONE:
            available: dict[str, list[tuple[str, int]]] = {}
            for (sku, warehouse), shelf in self.shelves.items():
                available.setdefault(sku, []).append((warehouse, shelf.on_hand - shelf.reserved))
            plans = allocate(ID, self.order.lines, available)
            short = isinstance(plans, Shortage)
            answer = self.record(c.RejectOrder(REASON) if short else c.RecordReservation(plans))
            self.gives_up |= isinstance(answer, Refusal)  # something else is held and must be undone first
        yield

    def authorize(self) -> Step:
        """Create, store, confirm, write down."""
        if self.order.status is not Status.ACCEPTED or self.order.payment.status is not PaymentStatus.PENDING:
            return
        yield
        intent = self.order.payment.intent
        if intent is None:
            intent = "pi_1"  # the same key gives the same intent
            self.intents.setdefault(intent, "unconfirmed")
            yield
            noted = self.record(c.RecordIntent(intent))
            if isinstance(noted, Refusal) or noted.status is not Status.ACCEPTED:
                return
        yield
        if self.intents[intent] == "unconfirmed":
            self.intents[intent] = "authorized" if self.card_is_good else "declined"
        yield
        if self.intents[intent] in {"authorized", "captured"}:
            self.record(c.RecordAuthorization(intent, self.order.total))
        else:
            self.record(c.RecordDecline("card_declined", None, "Declined."))
        self.gives_up |= self.order.payment.status is PaymentStatus.DECLINED

    def book(self) -> Step:
        """Every planned parcel, one by one."""
        for parcel in self.order.fulfilments:
            if self.order.status is not Status.ACCEPTED or parcel.status is not FulfilmentStatus.PLANNED:
                continue
            yield
            refused = self.undeliverable is not None and parcel.id == fulfilment_id(ID, self.undeliverable)
            if refused or self.shipments.get(parcel.id) == "cancelled":
                self.gives_up = True
                return
            self.shipments.setdefault(parcel.id, "booked")
            yield
            if isinstance(self.record(c.RecordBooking(parcel.id, f"shp_{parcel.id}", None)), Refusal):
                return

    def release(self) -> Step:
        """The point of no return, then tell the carrier."""
        order = self.record(c.ReleaseOrder())
        if isinstance(order, Refusal):
            return
        for parcel in order.fulfilments:
            if parcel.status is FulfilmentStatus.BOOKED:
                yield
                assert self.shipments[parcel.id] in {"booked", "released", "delivered"}
                if self.shipments[parcel.id] == "booked":
                    self.shipments[parcel.id] = "released"
                yield
                assert not isinstance(self.record(c.RecordDispatch(parcel.id)), Refusal)

    def capture(self) -> Step:
        """Take what is held."""
        payment = self.order.payment
        if self.order.status is not Status.DISPATCHED or payment.status is not PaymentStatus.AUTHORIZED:
            return
        yield
        assert self.intents[payment.intent or ""] in {"authorized", "captured"}
        self.intents[payment.intent or ""] = "captured"
        yield
        assert not isinstance(self.record(c.RecordCapture(self.order.total)), Refusal)

    # the way back

    def undo(self, *, forgets: str = "") -> Step:
        """Everything that may have been done, last first; then close. `forgets` leaves something out."""
        if self.order.status is not Status.CANCELLING and not (
            self.order.status is Status.ACCEPTED and self.gives_up
        ):
            return
        for parcel in live(self.order):
            yield
            assert self.shipments.get(parcel.id) != "released"
            self.shipments[parcel.id] = "cancelled"  # also one it has never heard of
            yield
            self.record(c.RecordShipmentCancelled(parcel.id))
        if self.order.payment.intent is not None and forgets != "money":
            yield
            back = {"captured": "refunded", "refunded": "refunded"}
            state = self.intents[self.order.payment.intent]
            self.intents[self.order.payment.intent] = back.get(state, "voided")
            yield
            money_was_taken = self.intents[self.order.payment.intent] == "refunded"
            self.record(c.RecordRefund(self.order.total) if money_was_taken else c.RecordVoid())
        yield
        if forgets != "stock":
            self.record(c.ReleaseStock())
        yield
        self.record(c.CloseOrder(None if self.order.status is Status.CANCELLING else REASON))

    # what others do

    def cancel(self) -> None:
        """A customer changes his mind."""
        self.record(c.CancelOrder())

    def deliver(self) -> None:
        """The carrier delivers one parcel that it has, and says so; perhaps again."""
        under_way = [parcel for parcel, state in self.shipments.items() if state == "released"]
        delivered = [parcel for parcel, state in self.shipments.items() if state == "delivered"]
        for parcel in (under_way + delivered)[:1]:
            self.shipments[parcel] = "delivered"
            assert not isinstance(self.record(c.RecordDelivery(parcel)), Refusal)

    def capture_by_hand(self) -> None:
        """Somebody presses a button at the provider."""
        for intent, state in self.intents.items():
            if state == "authorized":
                self.intents[intent] = "captured"

    def reprice(self) -> None:
        """An operator finds that everything was sold one too dear, or one too cheap where that is not so."""
        number = len(self.order.adjustments)
        change = 1 if number % 2 else -1
        paid = self.order.unit_prices
        prices = {sku: Money(max(0, price + change), self.order.currency) for sku, price in paid.items()}
        found = reprice(self.order, prices)
        assert not isinstance(found, Refusal)
        shown = c.RepriceOrder(f"rpl_{number}", "march", prices, found.before, found.after)
        assert not isinstance(self.record(shown), Refusal)

    # what must hold

    def check(self, pieces: dict[tuple[str, str], int]) -> None:
        """The promises, at any moment; `pieces` is what was on the shelves at first."""
        assert self.order.version == 1 + len(self.history)
        self._check_stock(pieces)
        self._check_money()
        self._check_parcels()

    def _check_stock(self, pieces: dict[tuple[str, str], int]) -> None:
        planned = {(line.sku, f.warehouse): line.quantity for f in self.order.fulfilments for line in f.lines}
        assert not (self.order.is_final and self.order.stock is StockStatus.RESERVED)
        for place, shelf in self.shelves.items():
            held = planned.get(place, 0)
            assert shelf.reserved == (held if self.order.stock is StockStatus.RESERVED else 0)
            gone = held if self.order.stock is StockStatus.SHIPPED else 0
            assert (shelf.on_hand, shelf.reserved <= shelf.on_hand) == (pieces[place] - gone, True)

    def _check_money(self) -> None:
        held = [state for state in self.intents.values() if state in {"authorized", "captured"}]
        assert len(held) <= 1
        if self.order.status in {Status.CANCELLED, Status.REJECTED}:
            assert held == []
        if self.order.status is Status.COMPLETED:
            assert held == (["captured"] if self.order.total else [])

    def _check_parcels(self) -> None:
        states = set(self.shipments.values())
        if states & {"released", "delivered"}:
            assert self.order.status in {Status.DISPATCHED, Status.COMPLETED}
        if self.order.status in {Status.CANCELLED, Status.REJECTED}:
            assert states <= {"cancelled"}
        if self.order.status is Status.COMPLETED:
            assert states == {"delivered"}

    def next_step(self) -> str:
        """What a worker that knows only the order would do now."""
        order = self.order
        if order.status is Status.CANCELLING or (order.status is Status.ACCEPTED and self.gives_up):
            return "undo"
        told = all(f.status is not FulfilmentStatus.BOOKED for f in order.fulfilments)
        if order.status is Status.CONFIRMED or (order.status is Status.DISPATCHED and not told):
            return "release"
        if order.status is not Status.ACCEPTED:
            return "capture"
        if order.stock is StockStatus.NONE:
            return "reserve"
        return "book" if order.is_paid_for else "authorize"

    def steps(self) -> dict[str, Callable[[], Step]]:
        """Each step by name."""
        return {
            "reserve": self.reserve,
            "authorize": self.authorize,
            "book": self.book,
            "release": self.release,
            "capture": self.capture,
            "undo": self.undo,
            "undo_without_money": lambda: self.undo(forgets="money"),
            "undo_without_stock": lambda: self.undo(forgets="stock"),
        }


def forget_notes(order: Order) -> Order:
    """Without the intent's id and the number of the keys, which no event tells."""
    return replace(order, payment=replace(order.payment, intent=None, key_number=1))
