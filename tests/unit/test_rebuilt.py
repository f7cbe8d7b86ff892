"""What a rebuild reads is what consumers handle: the two tables say the same of each projection."""

import pytest

from app.consumer.dispatch import groups
from app.projections.rebuilt import REBUILT, Projection


async def _nothing(_: object) -> None:
    """Nothing follows the commit."""


@pytest.mark.parametrize("projection", REBUILT, ids=lambda projection: projection.name)
def test_a_projection_is_rebuilt_from_the_events_that_its_group_gives_it(projection: Projection) -> None:
    """A type in one table only would make every rebuild differ from what is live."""
    group = next(group for group in groups(_nothing) if group.name == projection.group)
    handled = {kind for kind, handlers in group.handlers.items() if projection.handler in handlers}
    assert handled == projection.types


def test_every_handler_of_these_groups_can_be_rebuilt() -> None:
    """A new projection in the table of its group has an entry among those that are rebuilt."""
    known = {projection.handler for projection in REBUILT}
    for group in groups(_nothing):
        if group.name in {projection.group for projection in REBUILT}:
            assert {handler for handlers in group.handlers.values() for handler in handlers} <= known
