"""How many connections to PostgreSQL a whole installation may open at once: the one calculation of it.

Owns the arithmetic that a start and the manifests' tests have in common: pure numbers, nothing else.

A rollout is when most are open. Beside each new pod there may be an old one that still drains, and a
Deployment does not count those. New ones come `surge` at a time and `ready_s` apart, an old one is gone after
`grace_s` at the latest: so many steps may be draining at once, and never more pods than there were.
"""

from collections.abc import Iterable
from math import ceil
from typing import Final

import msgspec

OUTSIDE_POOL: Final = {"gateway": 0, "worker": 0, "consumer": 2}
"""Mode → connections of a process beside its pool. A consumer has one for its leases, one for the relay."""


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """Processes of one kind: at most `replicas` pods of `processes` each, all under one database role.

    `surge`: pods that a rollout may add; `grace_s`: how long an old one may take to end; `ready_s`: how long
    a new one is looked at before the next follows. `pool` and `others` are connections of one process.
    """

    role: str
    replicas: int
    pool: int
    others: int = 0
    processes: int = 1
    surge: int = 0
    grace_s: int = 0
    ready_s: int = 1


def pods(fleet: Fleet) -> int:
    """How many pods there may be at once, in the middle of a rollout."""
    draining = fleet.surge * ceil(fleet.grace_s / max(fleet.ready_s, 1))
    return fleet.replicas + fleet.surge + min(draining, fleet.replicas)


def needed(fleets: Iterable[Fleet]) -> dict[str, int]:
    """Database role → the connections that all its processes may have open at once."""
    roles: dict[str, int] = {}
    for fleet in fleets:
        one = fleet.processes * (fleet.pool + fleet.others)
        roles[fleet.role] = roles.get(fleet.role, 0) + pods(fleet) * one
    return roles


def refusal(own: int, total: int | None, room: int) -> str | None:
    """Why a server with room for so many connections is too small, None when it is not.

    `own` is what one process may open, `total` what all of them may, where the installation says so.
    """
    if max(own, total or 0) <= room:
        return None
    name = "DATABASE_POOL_SIZE" if total is None or own > room else "DATABASE_CONNECTIONS_MAX"
    wanted = f"{own} of one process" if name == "DATABASE_POOL_SIZE" else f"the {total} of all processes"
    return (
        f"{name} must be lower, or the database larger: it has room for {room} connections, not for {wanted} "
        "(max_connections without those reserved, and the limits of the role and of the database)"
    )
