"""What is measured is served while it is likely true, and measuring neither ends nor loads a process."""

import asyncio
from time import monotonic

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from app.domain.errors import Unavailable
from app.observability.measuring import GOOD_FOR_PAUSES, Measured, Reading, keep


@pytest.fixture
def gauge() -> Measured:
    """A gauge with a label."""
    return Measured("some_gauge", "Something", ("of",))


def served(gauge: Measured) -> str:
    """Its samples in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(gauge)
    text = generate_latest(registry).decode()
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))


async def until(question) -> None:
    """Wait until it is so."""
    async with asyncio.timeout(10):
        while not question():
            await asyncio.sleep(0.001)


def test_what_was_never_measured_is_not_served(gauge):
    """A zero would be a claim."""
    assert served(gauge) == ""


def test_what_was_measured_is_served(gauge):
    """With its labels."""
    gauge.set(3, "a")
    assert served(gauge) == 'some_gauge{of="a"} 3.0'


def test_what_was_measured_too_long_ago_is_not_served(gauge):
    """A value that stands still looks like one that is well."""
    gauge.set(3, "a", good_for_s=0)
    gauge.set(4, "b")
    assert served(gauge) == 'some_gauge{of="b"} 4.0'


def test_what_is_cleared_is_not_served(gauge):
    """Another process knows it better."""
    gauge.set(3, "a")
    gauge.clear()
    assert served(gauge) == ""


async def test_it_measures_again_after_a_pause(gauge):
    """And serves the newest."""
    numbers = iter(range(1000))

    async def measure() -> list[Reading]:
        return [Reading(gauge, next(numbers), ("a",))]

    keeping = asyncio.create_task(keep(measure, pause_s=0.001))
    await until(lambda: (gauge.value("a") or 0) >= 3)
    keeping.cancel()


@pytest.mark.parametrize("error", [Unavailable("postgres", "away"), TimeoutError(), ValueError("a defect")])
async def test_whatever_fails_it_goes_on(gauge, error):
    """And says each time that it failed."""
    failed = []

    async def measure() -> list[Reading]:
        if len(failed) < 3:
            raise error
        return [Reading(gauge, 1, ("a",))]

    keeping = asyncio.create_task(keep(measure, pause_s=0.001, otherwise=lambda: failed.append(1)))
    await until(lambda: gauge.value("a") == 1)
    keeping.cancel()
    assert len(failed) == 3


async def test_what_takes_long_is_measured_less_often_and_served_longer(gauge):
    """At most a hundredth of the time goes into it."""
    times = []

    async def measure() -> list[Reading]:
        times.append(1)
        await asyncio.sleep(0.05)
        return [Reading(gauge, 1, ("a",))]

    keeping = asyncio.create_task(keep(measure, pause_s=0.001))
    await until(lambda: gauge.value("a") == 1)
    await asyncio.sleep(0.1)
    keeping.cancel()
    assert len(times) == 1
    assert gauge._values["a",][1] - monotonic() > GOOD_FOR_PAUSES * 4
