"""Price lists: what prices should have been, as people hand them in: CSV or JSON, checked line by line.

CSV has the header `sku,amount,currency` and one price a line; JSON is a list of `{"sku", "price"}` with
money as it is everywhere else. Amounts are whole minor units. Everything that is wrong is named at once, by
its line or its place, and nothing is taken of a list in which anything is wrong.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from app.domain.errors import Fault
from app.domain.ids import NAME
from app.domain.money import AMOUNT_MAX, CURRENCY, Money

PRICES_MAX: Final = 10_000
FAULTS_MAX: Final = 20
"""How many faults are named; the rest is counted."""
LIST_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}\Z")

COLUMNS: Final = ("sku", "amount", "currency")
_WHOLE: Final = re.compile(r"-?[0-9]{1,20}\Z", re.ASCII)


class PriceList(msgspec.Struct, frozen=True):
    """What pieces should have cost, by SKU; the name is for people."""

    name: str
    prices: dict[str, Money]


class ListedPrice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a piece of one SKU should have cost."""

    sku: str
    price: Money


class WrongPriceList(Exception):
    """A price list with something wrong in it: `faults` name the places (`line 7`, `/3/price/amount`)."""

    def __init__(self, faults: tuple[Fault, ...], more: int = 0) -> None:
        """The first faults, and how many `more` there are."""
        lines = [f"{fault.pointer}: {fault.detail}" if fault.pointer else fault.detail for fault in faults]
        super().__init__("\n".join([*lines, f"and {more} more"] if more else lines))
        self.faults = faults


def read(data: bytes) -> dict[str, Money]:
    """The prices of a list as it lies in a file: JSON where it begins with a bracket, else CSV.

    Raises WrongPriceList.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise WrongPriceList((Fault(f"line {line}", "This is no UTF-8."),)) from None
    return read_json(text) if text.lstrip("\ufeff \t\r\n")[:1] in {"[", "{"} else read_csv(text)


def as_listed(prices: Mapping[str, Money]) -> list[dict[str, Any]]:
    """Prices as a request names them, in plain JSON."""
    return [
        {"sku": sku, "price": {"amount": price.amount, "currency": price.currency}}
        for sku, price in prices.items()
    ]


def read_csv(text: str) -> dict[str, Money]:
    """The prices of a list in CSV. Raises WrongPriceList."""
    rows = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    listed = _Listed()
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        if sorted(header) != sorted(COLUMNS):
            raise WrongPriceList((Fault("line 1", f"The header has to be {','.join(COLUMNS)}."),))
        for row in rows:
            place = f"line {rows.line_num}"
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(COLUMNS):
                listed.wrong(place, f"There have to be {len(COLUMNS)} columns, not {len(row)}.")
                continue
            cells = dict(zip(header, (cell.strip() for cell in row), strict=True))
            listed.add(place, cells["sku"], _whole(cells["amount"]), cells["currency"])
    except csv.Error as error:
        listed.wrong(f"line {rows.line_num}", f"This is no CSV: {error}.")
    return listed.prices()


def read_json(text: str | bytes) -> dict[str, Money]:
    """The prices of a list in JSON. Raises WrongPriceList."""
    try:
        bare = text.removeprefix("\ufeff") if isinstance(text, str) else text
        items = msgspec.json.decode(bare, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WrongPriceList((Fault("", f"This is no JSON list of prices: {error}."),)) from None
    listed = _Listed()
    for number, item in enumerate(items):
        try:
            one = msgspec.json.decode(item, type=ListedPrice)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            listed.wrong(f"/{number}", f"{error}.")
            continue
        listed.add(f"/{number}", one.sku, one.price.amount, one.price.currency)
    return listed.prices()


def check(items: list[ListedPrice]) -> dict[str, Money]:
    """The prices of a list that is decoded already. Raises WrongPriceList."""
    listed = _Listed()
    for number, one in enumerate(items):
        listed.add(f"/{number}", one.sku, one.price.amount, one.price.currency)
    return listed.prices()


class _Listed:
    """Takes prices in, and what is wrong with them."""

    def __init__(self) -> None:
        self._prices: dict[str, Money] = {}
        self._places: dict[str, str] = {}
        self._faults: list[Fault] = []

    def add(self, place: str, sku: str, amount: int | str, currency: str) -> None:
        """One price, as it was given at `place`; an amount that is no whole number is still a text."""
        faults = list(_faults(sku, amount, currency))
        if sku in self._places:
            faults.append(f"{sku} has a price already, at {self._places[sku]}.")
        self._places.setdefault(sku, place)
        for fault in faults:
            self.wrong(place, fault)
        if not faults:
            assert isinstance(amount, int)
            self._prices[sku] = Money(amount, currency)

    def wrong(self, place: str, detail: str) -> None:
        self._faults.append(Fault(place, detail))

    def prices(self) -> dict[str, Money]:
        """All of them. Raises WrongPriceList."""
        if not self._faults and not self._prices:
            self.wrong("", "There is no price in it.")
        if len(self._prices) > PRICES_MAX:
            self.wrong("", f"A list has at most {PRICES_MAX} prices, not {len(self._prices)}.")
        if self._faults:
            raise WrongPriceList(tuple(self._faults[:FAULTS_MAX]), max(0, len(self._faults) - FAULTS_MAX))
        return self._prices


def _faults(sku: str, amount: Any, currency: str) -> Iterator[str]:  # noqa: ANN401 - whatever was given
    if not NAME.match(sku):
        yield f"{sku!r} is no SKU: letters, digits and . _ - (at most 64)."
    if not isinstance(amount, int):
        yield f"The amount has to be whole minor units (1467 for 14.67), not {amount!r}."
    elif not 0 <= amount <= AMOUNT_MAX:
        yield f"The amount has to be from 0 to {AMOUNT_MAX} minor units, not {amount}."
    if not CURRENCY.match(currency):
        yield f"{currency!r} is no currency: three capital letters, as in USD."


def _whole(text: str) -> int | str:
    return int(text) if _WHOLE.match(text) else text
