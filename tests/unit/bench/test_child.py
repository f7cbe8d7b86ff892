"""Sides that run in a process of their own."""

import asyncio
import os
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bench.child import ChildSide
from bench.harness import Unavailable, measure
from bench.processor import CLIENT_CPU, CPUS, pinned
from bench.samples import BenchmarkFailed, Sample


@asynccontextmanager
async def counting(start: int):
    """Counts runs, and says where it runs."""
    number = start

    async def run(seconds: float) -> Sample:
        nonlocal number
        number += 1
        print("what a library prints is no answer")
        loop = type(asyncio.get_running_loop()).__module__
        values = {
            "pid": os.getpid(),
            "cpus": len(os.sched_getaffinity(0)),
            "uvloop": float("uvloop" in loop),
        }
        return Sample(number, seconds, {}, values)

    yield run


@asynccontextmanager
async def breaking():
    """Breaks at its first run."""

    async def run(seconds: float) -> int:
        raise ValueError(f"{seconds} is too long")

    yield run


@asynccontextmanager
async def missing():
    """Cannot be had here."""
    import not_installed_anywhere  # noqa: F401

    yield


def side(tmp_path, factory: str, **options) -> ChildSide:
    """A side of this module."""
    return ChildSide("child", f"{__name__}:{factory}", options, log=tmp_path / "child.log", cpu=CLIENT_CPU)


async def test_a_child_keeps_its_state_between_runs_on_its_own_processor(tmp_path):
    """Connections are opened once, and sides do not disturb one another."""
    child = side(tmp_path, "counting", start=40)
    await child.open()
    try:
        samples = [await measure(child, 0.5) for _ in range(2)]
    finally:
        await child.close()
    assert [sample.operations for sample in samples] == [41, 42]
    assert samples[0].values == {"pid": samples[1].values["pid"], "cpus": 1, "uvloop": 1}
    assert samples[0].values["pid"] != os.getpid()
    assert samples[0].cpu_s["client"] > 0
    assert not Path(f"/proc/{int(samples[0].values['pid'])}").exists()
    assert "no answer" in (tmp_path / "child.log").read_text()


async def test_what_breaks_in_a_child_is_told_with_the_path_of_its_log(tmp_path):
    """And the traceback is in it."""
    child = side(tmp_path, "breaking")
    await child.open()
    with pytest.raises(BenchmarkFailed, match=r"ValueError: 0\.5 is too long; see .*child\.log"):
        await child.run(0.5)
    await child.close()
    assert "Traceback" in (tmp_path / "child.log").read_text()


async def test_a_package_that_is_not_installed_makes_its_side_unavailable(tmp_path):
    """Not every peer has a wheel for every platform."""
    child = side(tmp_path, "missing")
    with pytest.raises(Unavailable, match="not_installed_anywhere"):
        await child.open()
    await child.close()


def test_pinning_ends_where_it_was_asked_to_end():
    """The harness itself may run anywhere."""
    with pinned(CPUS[0]):
        assert os.sched_getaffinity(0) == {CPUS[0]}
    assert sorted(os.sched_getaffinity(0)) == CPUS
