"""What is read from a run of a benchmark."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.samples import Meaningless, Sample, Spread, cpu_per_operation, in_series, rate, value

numbers = st.floats(1e-3, 1e9)


def test_a_rate_is_operations_by_the_clock():
    """Not by processor time, and not by the time that was asked for."""
    assert rate(Sample(300, 1.5, {"client": 0.1})) == 200


def test_processor_time_is_an_operation_s():
    """In microseconds, of the named processes together."""
    sample = Sample(1000, 1.0, {"gateway": 0.2, "postgres": 0.1, "client": 0.9})
    assert cpu_per_operation("gateway", "postgres")(sample) == pytest.approx(300)
    assert cpu_per_operation("gateway", unit_s=1e-3)(sample) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "reading", [rate, cpu_per_operation("gateway"), cpu_per_operation("nobody"), value("p99")]
)
def test_what_was_not_measured_is_no_zero(reading):
    """A figure from nothing would look like a result."""
    with pytest.raises(Meaningless):
        reading(Sample(0, 1.0, {"gateway": 0.1}))


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=4))
def test_in_series_is_one_over_the_sum_of_the_reciprocals(parts):
    """An operation that passes through all takes the sum of their times."""
    samples = [(f"part {n}", Sample(*part)) for n, part in enumerate(parts)]
    whole = in_series(samples)
    assert rate(whole) == pytest.approx(1 / sum(wall / operations for operations, wall in parts))
    assert whole.parts == tuple(samples)


def test_in_series_adds_the_processor_time_of_one_operation():
    """So it can be compared with a side that does all of it."""
    whole = in_series(
        [("a", Sample(10, 1, {"client": 0.5})), ("b", Sample(100, 1, {"client": 1, "redis": 2}))]
    )
    assert whole.cpu_s == pytest.approx({"client": 0.05 + 0.01, "redis": 0.02})


@given(st.lists(numbers, min_size=1, max_size=20))
def test_a_spread_encloses_its_middle(values):
    """Smallest, middle, largest."""
    spread = Spread.of(values)
    assert spread.min == min(values) <= spread.median <= spread.max == max(values)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_there_is_no_spread_of_nothing(values):
    """Nor of what is no number."""
    with pytest.raises(Meaningless):
        Spread.of(values)
