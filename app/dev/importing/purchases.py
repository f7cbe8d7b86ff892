"""Owns the purchase log: what a line of it says, and which order a purchase is.

Pure: text in, purchases out. Money is cents as whole numbers from the first character on, so orders add up
to the file to the cent.
"""

import re
from collections.abc import Iterator
from datetime import date
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

_DOLLARS: Final = re.compile(r"(\d{1,6})(?:\.(\d{1,2}))?\Z")
_NUMBER: Final = re.compile(r"\d{1,5}\Z")
_CUSTOMER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,50}\Z")
_DATE: Final = re.compile(r"(\d{4})(\d{2})(\d{2})\Z")
_COLUMNS: Final = (4, 5)


class Purchase(NamedTuple):
    """One line: what a customer bought on one day. `line` counts from 1, `cents` are what it cost in all."""

    line: int
    customer: str
    day: date
    pieces: int
    cents: int


class Share(NamedTuple):
    """So many CDs of one price; together the shares of a purchase cost what it did."""

    cents: int
    pieces: int

    @property
    def sku(self) -> str:
        """The product that stands for this price."""
        return f"cd-{self.cents}"


class BadLineError(Exception):
    """A line that is no purchase: its number, and what is wrong with it."""

    def __init__(self, line: int, wrong: str) -> None:
        super().__init__(f"line {line}: {wrong}")
        self.line = line


def shares(purchase: Purchase) -> list[Share]:
    """Split the cents over the CDs as evenly as whole cents allow, larger shares first."""
    cents, over = divmod(purchase.cents, purchase.pieces)
    split = (Share(cents + 1, over), Share(cents, purchase.pieces - over))
    return [share for share in split if share.pieces]


def read(path: Path, limit: int | None = None) -> list[Purchase]:
    """The first `limit` purchases of a log. Raises BadLineError and OSError."""
    with path.open("rb") as file:
        return list(islice(_purchases(file), limit))


def _purchases(lines: Iterator[bytes]) -> Iterator[Purchase]:
    columns = None
    for number, raw in enumerate(lines, 1):
        try:
            fields = raw.decode("utf-8-sig" if number == 1 else "utf-8").split()
        except UnicodeDecodeError:
            raise BadLineError(number, "it is not text") from None
        if not fields:
            continue
        if columns is None:
            if _is_header(fields):
                columns = 0
                continue
            columns = len(fields)
        columns = columns or len(fields)
        if columns not in _COLUMNS or len(fields) != columns:
            wanted = f"{columns} columns, as in the lines before" if columns in _COLUMNS else "4 or 5 columns"
            raise BadLineError(number, f"it should have {wanted}, not {len(fields)}")
        yield _purchase(number, fields)


def _is_header(fields: list[str]) -> bool:
    """Whether the first line names the columns instead of filling them."""
    return not any(character.isdigit() for character in fields[-1])


def _purchase(line: int, fields: list[str]) -> Purchase:
    customer, day, pieces, dollars = fields[-4:]
    if not _CUSTOMER.match(customer):
        raise BadLineError(line, f"{customer!r} cannot be a customer's number")
    if not _NUMBER.match(pieces) or int(pieces) == 0:
        raise BadLineError(line, f"the number of CDs has to be a whole number from 1, not {pieces!r}")
    amount = _DOLLARS.match(dollars)
    if not amount:
        raise BadLineError(line, f"the dollars have to be like 29.33, not {dollars!r}")
    cents = int(amount[1]) * 100 + int((amount[2] or "").ljust(2, "0"))
    return Purchase(line, f"cdnow-{customer}", _day(line, day), int(pieces), cents)


def _day(line: int, text: str) -> date:
    parts = _DATE.match(text)
    try:
        if parts:
            return date(int(parts[1]), int(parts[2]), int(parts[3]))
    except ValueError:
        pass
    raise BadLineError(line, f"the date has to be like 19970131, not {text!r}")
