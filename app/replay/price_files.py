"""A price list in a file, as the parameters of a replay. Everything wrong in it is said by its line."""

import argparse
import re
from pathlib import Path
from typing import Any, Final

from app.contracts.price_lists import LIST_NAME, WrongPriceList, as_listed, read

FILE_BYTES_MAX: Final = 4_000_000

_STRANGE: Final = re.compile(r"[^A-Za-z0-9 ._-]+")


def prices_in(file: str) -> dict[str, Any]:
    """The parameters that a file stands for; the list is called as the file is.

    Raises ArgumentTypeError, which ends the command with what is wrong.
    """
    path = Path(file)
    try:
        size = path.stat().st_size
        if size > FILE_BYTES_MAX:
            raise argparse.ArgumentTypeError(f"{file} has {size} bytes; {FILE_BYTES_MAX} is the most")
        prices = read(path.read_bytes())
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{file} cannot be read: {error.strerror}") from None
    except WrongPriceList as wrong:
        raise argparse.ArgumentTypeError(f"{file}:\n{wrong}") from None
    name = _STRANGE.sub("-", path.stem).lstrip(" ._-")[:64]
    return {"price_list": name or "prices", "prices": as_listed(prices)}


def list_name(text: str) -> str:
    """What a price list is called. Raises ArgumentTypeError."""
    if not LIST_NAME.match(text):
        raise argparse.ArgumentTypeError("a name is letters, digits, spaces and . _ - (at most 64)")
    return text
