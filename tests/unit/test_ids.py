"""Ids: they sort by time, are safe in keys, paths and shells, and cannot be mistaken for one another."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from app.domain.ids import NAME, ORDER_ID, fulfilment_id, order_id, order_of_fulfilment

moments = st.integers(0, 2**48 - 1)
dice = st.binary(min_size=10, max_size=10)


@given(moments, dice, moments, dice)
def test_ids_sort_by_time_and_then_by_chance(earlier, some, later, others):
    """The order of the texts is the order of the numbers behind them."""
    assert (order_id(earlier, some) < order_id(later, others)) == ((earlier, some) < (later, others))


@given(moments, dice)
def test_an_order_id_looks_like_one(moment, random):
    """`ord_` and 26 characters, none of which is read for another."""
    made = order_id(moment, random)
    assert ORDER_ID.match(made)
    assert not set("ilou") & set(made[4:])
    assert NAME.match(made)


@given(moments, dice, st.integers(1, 9999))
def test_a_fulfilment_leads_back_to_its_order(moment, random, number):
    """Its id is made of the order's."""
    made = order_id(moment, random)
    assert order_of_fulfilment(fulfilment_id(made, number)) == made


@pytest.mark.parametrize(
    ("moment", "random"), [(-1, bytes(10)), (2**48, bytes(10)), (0, bytes(9)), (0, bytes(11))]
)
def test_what_does_not_fit_in_an_id_is_refused(moment, random):
    """Cut off it would name another order, or sort wrongly."""
    with pytest.raises(ValueError, match="order id"):
        order_id(moment, random)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "ful_",
        "ful_01kjmma2qt000g40r40m30e209",
        "ful_01kjmma2qt000g40r40m30e209_0",
        "ful_01kjmma2qt000g40r40m30e209_01",
        "ful_01kjmma2qt000g40r40m30e209_10000",
        "ful_01kjmma2qt000g40r40m30e209_1\n",
        "ful_01kjmma2qt000g40r40m30e20_1",
        "ful_01KJMMA2QT000G40R40M30E209_1",
        "ord_01kjmma2qt000g40r40m30e209",
        "ful_01kjmma2qt000g40r40m30e209_1; drop table orders",
        "ful_01kjmma2qt000g40r40m30e209_\u0661",
    ],
)
def test_what_is_no_fulfilments_id_leads_nowhere(wrong: str):
    """It comes from outside, in a webhook."""
    assert order_of_fulfilment(wrong) is None


@pytest.mark.parametrize("good", ["a", "A-1", "cus_1", "85123A", "x" * 64, "0.5-l"])
def test_names_may_be_plain(good: str):
    """What customers, SKUs and warehouses are usually called."""
    assert NAME.match(good)


@pytest.mark.parametrize(
    "wrong",
    ["", "x" * 65, "-a", ".a", "_a", "a b", "a:b", "a*", "a'", "a/b", "a\n", "a\0", "{a}", "é", "٣", "a\r\n"],
)
def test_names_hold_nothing_that_means_something_elsewhere(wrong: str):
    """Not in Redis keys, paths, logs, patterns or SQL."""
    assert not NAME.match(wrong)
