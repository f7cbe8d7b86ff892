"""Which test process runs what: the folders that are named are there, and long comes before quick."""

from dataclasses import dataclass

import pytest

from tests import schedule
from tests.architecture.sources import ROOT


@dataclass
class Item:
    """As much of a test as the order asks for."""

    nodeid: str


@pytest.mark.parametrize("folder", [schedule.ONE_STACK, *schedule.QUICK])
def test_folders_that_are_named_are_there(folder: str):
    """One that was moved would be dealt out like any other, and nobody would notice."""
    assert list((ROOT / folder).glob("test_*.py"))


def test_what_is_quick_comes_last_and_all_else_stays_in_order():
    """Acceptance tests first: they are collected first."""
    names = ["tests/acceptance/test_a.py::a", "tests/architecture/test_b.py::b", "tests/integration/c.py::c"]
    items = [Item(name) for name in names]
    schedule.arrange(items)
    assert [item.nodeid for item in items] == [names[0], names[2], names[1]]
