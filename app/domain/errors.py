"""What can go wrong, in three kinds that everybody treats alike.

A *refusal* is final: asking again gives the same answer. *Unavailable* passes: whoever asked asks again,
and what was asked may or may not have been done. Anything else is a defect and stays loud.
"""

import msgspec


class Fault(msgspec.Struct, frozen=True):
    """One wrong field: an RFC 6901 `pointer` into the request's body, and what is wrong there."""

    pointer: str
    detail: str


class Refusal(msgspec.Struct, frozen=True):
    """A final "no": `code` is a stable slug that programs may read, `detail` a sentence for people."""

    code: str
    detail: str
    faults: tuple[Fault, ...] = ()


class Refused(Exception):
    """Carries a refusal up to where it is answered."""

    def __init__(self, refusal: Refusal) -> None:
        """Keep the refusal; its detail is the message."""
        super().__init__(refusal.detail)
        self.refusal = refusal


class Unavailable(Exception):
    """A service did not answer, or said that it cannot now. What was asked may have been done."""

    def __init__(self, service: str, detail: str = "") -> None:
        """Name the `service` (`postgres`, `redis`, `payments`, `shipping`) and what was seen."""
        super().__init__(f"{service} is unavailable" + (f": {detail}" if detail else ""))
        self.service = service


def _storable(text: str) -> str:
    """Text of somebody else's as PostgreSQL can keep it: without NUL."""
    return text.replace("\0", "")


class KeyWornOut(Unavailable):
    """The provider answers this idempotency key with a stored failure of its own: take the next number."""


class Declined(Exception):
    """The provider refuses this payment method for good."""

    def __init__(self, code: str, decline_code: str | None, message: str) -> None:
        """Take the provider's own `code`, finer `decline_code` and sentence."""
        super().__init__(message)
        self.code = _storable(code)
        self.decline_code = decline_code and _storable(decline_code)
        self.message = _storable(message)
