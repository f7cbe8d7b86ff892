"""How two sides are compared."""

import pytest

from bench.harness import (
    BLOCKS_MIN,
    EffectsDiffer,
    Figure,
    InSeries,
    Side,
    Silent,
    Unavailable,
    measure,
    run_contest,
)
from bench.samples import BenchmarkFailed, Sample, value
from tests.unit.bench.sides import RUNS, Nowhere, Scripted, contest


async def measured(*arguments, **changes):
    """A contest, run."""
    return await run_contest(contest(*arguments, **changes), Silent())


async def test_sides_run_a_b_b_a_after_a_warm_up():
    """So that a machine that slows down meets both alike; peers run once a block."""
    diary = []
    sides = [Scripted(name, diary=diary) for name in ("A", "B", "P")]
    await measured(*sides[:2], peers=sides[2:])
    assert "".join(diary) == "ABP" + "ABBAP" * BLOCKS_MIN


async def test_a_ratio_is_taken_within_one_pair():
    """The machine halves its speed all the time and the ratio stays what it is."""
    rates = [1000 / 2**run for run in range(RUNS)]
    outcome = (await measured(Scripted("A", [3 * rate for rate in rates]), Scripted("B", rates))).outcomes()[
        0
    ]
    assert outcome.ratios == (3,) * 2 * BLOCKS_MIN
    assert (outcome.ratio.min, outcome.ratio.median, outcome.ratio.max) == (3, 3, 3)


async def test_the_spread_has_the_ends_and_the_middle_of_all_pairs():
    """One lucky pair is seen, and does not decide."""
    ours = [0, 5, *[2] * (2 * BLOCKS_MIN - 2), 1]
    outcome = (await measured(Scripted("A", [100 * ratio for ratio in ours]), Scripted("B"))).outcomes()[0]
    assert (outcome.ratio.min, outcome.ratio.median, outcome.ratio.max) == (1, 2, 5)


async def test_the_warm_up_is_in_no_figure_but_counts_as_done():
    """What it left behind is there as well."""
    result = await measured(
        Scripted("A", [7] + [1] * (RUNS - 1)), Scripted("B", [1] * RUNS), found=2 * RUNS + 6
    )
    assert result.totals == {"A": RUNS + 6, "B": RUNS}
    assert result.outcomes()[0].ours.max == 1


async def test_effects_that_do_not_match_fail_the_contest():
    """A side that says it did more than is there has measured something else."""
    with pytest.raises(EffectsDiffer, match="orders: 2,200 expected, 2,199 found"):
        await measured(Scripted("A"), Scripted("B"), found=2199)


async def test_a_missing_peer_is_named_and_left_out():
    """Peers are for information."""
    result = await measured(Scripted("A"), Scripted("B"), peers=[Nowhere("P")])
    assert result.missing_peers == {"P": "no wheel for this platform"}
    assert "P" not in result.samples


async def test_a_missing_reference_fails_the_contest():
    """Without it there is no figure."""
    with pytest.raises(BenchmarkFailed, match="B cannot be had here"):
        await measured(Scripted("A"), Nowhere("B"))


async def test_sides_are_closed_whatever_happens():
    """A side that breaks leaves no process behind."""
    sides = [Scripted("A"), Scripted("B", [1.0])]
    with pytest.raises((StopIteration, RuntimeError)):
        await measured(*sides)
    assert not any(side.is_open for side in sides)


async def test_a_figure_may_compare_values_where_less_is_better():
    """A latency of ours beside one of the reference."""
    figure = Figure("p50_vs_other", goal=1.5, unit="ms", better="lower", of=value("p50_ms"))
    outcome = (await measured(Scripted("A"), Scripted("B"), figures=[figure])).outcomes()[0]
    assert (outcome.ours.median, outcome.ratio.median, outcome.is_met) == (7, 1, True)


@pytest.mark.parametrize(("better", "met"), [("higher", [True, True, False]), ("lower", [False, True, True])])
async def test_a_goal_that_is_just_reached_is_reached(better: str, met: list[bool]):
    """At least, or at most."""
    for ratio, expected in zip((2, 1, 0.5), met, strict=True):
        figures = [Figure("x", goal=1, better=better)]
        result = await measured(Scripted("A", [100 * ratio] * RUNS), Scripted("B"), figures=figures)
        assert result.outcomes()[0].is_met is expected


async def test_a_reference_may_be_several_sides_in_series():
    """Each part's operations are counted under its own name."""
    limit = InSeries("limit", Scripted("SET"), Scripted("EVALSHA", [50.0] * RUNS))
    result = await measured(Scripted("A"), limit)
    assert result.outcomes()[0].reference.median == pytest.approx(1 / (1 / 100 + 1 / 50))
    assert result.totals == {"A": 100 * RUNS, "SET": 100 * RUNS, "EVALSHA": 50 * RUNS}


async def test_processor_time_of_a_side_s_processes_is_measured_around_its_run():
    """What burns in between is the side's."""
    import os
    import time

    class Burning(Side):
        name = "burning"
        processes = {"test": os.getpid()}  # noqa: RUF012 - as sides write it

        async def run(self, seconds: float) -> Sample:
            end = time.process_time() + seconds
            while time.process_time() < end:
                pass
            return Sample(1, seconds)

    sample = await measure(Burning(), 0.1)
    assert 0.08 <= sample.cpu_s["test"] <= 0.3


def test_fewer_than_five_blocks_are_no_measurement():
    """The contract promises five."""
    with pytest.raises(AssertionError):
        contest(Scripted("A"), Scripted("B"), blocks=BLOCKS_MIN - 1)


async def test_a_side_that_cannot_be_had_says_so_by_name():
    """The reason is told to who waits."""
    with pytest.raises(Unavailable, match="no wheel"):
        await Nowhere("P").open()
