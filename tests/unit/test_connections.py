"""The arithmetic of connections: what all processes may open at once, in the middle of a rollout."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from app.connections import Fleet, needed, pods, refusal

FLEETS = st.builds(
    Fleet,
    role=st.sampled_from(["platform", "tools"]),
    replicas=st.integers(0, 50),
    pool=st.integers(1, 50),
    others=st.integers(0, 3),
    processes=st.integers(1, 4),
    surge=st.integers(0, 10),
    grace_s=st.integers(0, 120),
    ready_s=st.integers(0, 60),
)


@pytest.mark.parametrize(
    ("fleet", "expected"),
    [
        (Fleet(role="x", replicas=3, pool=10), 3),
        (Fleet(role="x", replicas=3, pool=10, surge=1), 4),
        (Fleet(role="x", replicas=12, pool=10, surge=1, grace_s=45, ready_s=10), 12 + 1 + 5),
        (Fleet(role="x", replicas=2, pool=10, surge=1, grace_s=45, ready_s=10), 2 + 1 + 2),
        (Fleet(role="x", replicas=4, pool=10, surge=2, grace_s=40, ready_s=0), 4 + 2 + 4),
    ],
)
def test_old_pods_that_drain_are_counted(fleet: Fleet, expected: int):
    """Beside the new ones there are as many old ones as end within the time that they may take."""
    assert pods(fleet) == expected


def test_each_process_has_its_pool_and_what_is_beside_it():
    """Summed by role: each role has a limit of its own."""
    fleets = [
        Fleet(role="platform", replicas=3, pool=10),
        Fleet(role="platform", replicas=2, processes=2, pool=5, others=2),
        Fleet(role="tools", replicas=1, pool=1),
    ]
    assert needed(fleets) == {"platform": 3 * 10 + 2 * 2 * 7, "tools": 1}


@given(FLEETS)
def test_never_more_than_twice_the_pods_and_the_surge(fleet: Fleet):
    """However long the old ones take."""
    assert fleet.replicas <= pods(fleet) <= 2 * fleet.replicas + fleet.surge


@given(st.lists(FLEETS, max_size=5))
def test_more_of_anything_never_needs_less(fleets: list[Fleet]):
    """A bigger pool is never free."""
    larger = [
        Fleet(**{name: getattr(fleet, name) for name in Fleet.__struct_fields__} | {"pool": fleet.pool + 1})
        for fleet in fleets
    ]
    assert sum(needed(larger).values()) >= sum(needed(fleets).values())


@pytest.mark.parametrize(
    ("own", "total", "room", "named"),
    [
        (10, None, 97, None),
        (10, 97, 97, None),
        (10, 98, 97, "DATABASE_CONNECTIONS_MAX"),
        (98, None, 97, "DATABASE_POOL_SIZE"),
        (98, 50, 97, "DATABASE_POOL_SIZE"),
    ],
)
def test_a_server_that_is_too_small_is_refused_by_the_setting_to_blame(
    own: int, total: int | None, room: int, named: str | None
):
    """The line begins with the variable."""
    why = refusal(own, total, room)
    assert (why or "").partition(" ")[0] == (named or "")
