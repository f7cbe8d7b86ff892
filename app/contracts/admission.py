"""Redis keys of admission: the limits of each API key, its stored answers, and the sold-out gate.

What one call of a caller touches carries the caller as a hash tag, and all of the gate carries `gate`: on a
cluster these are two places. Idempotency keys may hold personal data, so only a digest of them is in a key.
"""

from hashlib import blake2b
from typing import Final

_DIGEST_BYTES: Final = 16


def limit(environment: str, caller: str, policy: str) -> str:
    """How much of a caller's limit is used up; `policy` is `read` or `write`."""
    return f"hf:{environment}:{{{caller}}}:limit:{policy}"


def answers(environment: str, caller: str) -> str:
    """What the keys of all stored answers of a caller begin with; `answer_digest` completes one."""
    return f"hf:{environment}:{{{caller}}}:answer:"


def answer_digest(route: str, key: str) -> str:
    """What stands for a route (method and path) and an idempotency key; it tells neither."""
    return blake2b(f"{route}\n{key}".encode(), digest_size=_DIGEST_BYTES).hexdigest()


def gate(environment: str, what: str) -> str:
    """A part of the sold-out gate: `counts`, `passed`, `rebuilding`, or a prefix that ends with a colon."""
    return f"hf:{environment}:{{gate}}:{what}"
