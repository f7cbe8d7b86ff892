"""The purchase log: what a line says, what is wrong with it, and what a purchase comes to."""

from datetime import date
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from app.dev.importing.purchases import BadLineError, Purchase, read, shares


def write(tmp_path: Path, text: str | bytes) -> Path:
    """A log with this text."""
    path = tmp_path / "log.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_five_columns_are_the_sample(tmp_path):
    """The customer is the number in the sample."""
    path = write(tmp_path, " 00004 0001 19970101  2   29.33\n")
    assert read(path) == [Purchase(1, "cdnow-0001", date(1997, 1, 1), 2, 2933)]


def test_four_columns_are_the_full_log(tmp_path):
    """The customer is the only number there is."""
    path = write(tmp_path, "00004 19970101 2 29.33\r\n")
    assert read(path) == [Purchase(1, "cdnow-00004", date(1997, 1, 1), 2, 2933)]


@pytest.mark.parametrize("header", ["id sample date number dollars\n", "ID\tDATE\tCDS\tDOLLARS\n\n"])
def test_a_header_and_blank_lines_are_skipped(tmp_path, header):
    """Lines keep their numbers in the file."""
    path = write(tmp_path, f"\n{header}\n 00004 19970101 1 5\n   \n 00005 19970102 1 5.5\n")
    assert [(p.customer, p.cents) for p in read(path)] == [("cdnow-00004", 500), ("cdnow-00005", 550)]
    assert read(path)[-1].line == len(path.read_text().splitlines())


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("1 19970101 2", "4 or 5 columns"),
        ("1 19970101 0 5.00", "number of CDs"),
        ("1 19970101 -1 5.00", "number of CDs"),
        ("1 19970101 1.5 5.00", "number of CDs"),
        ("1 19970101 2 5.001", "dollars"),
        ("1 19970101 2 -5.00", "dollars"),
        ("1 19970101 2 1e3", "dollars"),
        ("1 19970101 2 5,00", "dollars"),
        ("1 19971301 2 5.00", "date"),
        ("1 1997-01-01 2 5.00", "date"),
        ("a/b 19970101 2 5.00", "customer"),
        ("1 2 19970101 2 5.00 6", "4 or 5 columns"),
        ("٣ 19970101 2 5.00", "customer"),
    ],
)
def test_a_line_that_is_no_purchase_is_named(tmp_path, line, wrong):
    """With its number, and what it should have been."""
    for before in ("", "00001 19970101 1 1.00\n"):
        path = write(tmp_path, before + line + "\n")
        with pytest.raises(BadLineError, match=wrong if not before else "line 2:") as error:
            read(path)
        assert error.value.line == 1 + bool(before)


def test_columns_may_not_change(tmp_path):
    """A file is one log or the other."""
    path = write(tmp_path, "1 19970101 2 5.00\n1 2 19970101 2 5.00\n")
    with pytest.raises(BadLineError, match="line 2: it should have 4 columns"):
        read(path)


def test_what_is_not_text_is_named(tmp_path):
    """Somebody picked the wrong file."""
    with pytest.raises(BadLineError, match="not text"):
        read(write(tmp_path, b"\x89PNG\xff\xfe\n"))


def test_the_sample_is_what_it_says(sample):
    """Its README counts the same."""
    purchases = read(sample)
    assert len(purchases) == 1000
    assert sum(p.pieces for p in purchases) == 2236
    assert sum(p.cents for p in purchases) == 3413224
    assert sum(p.cents == 0 for p in purchases) == 4
    assert len({p.customer for p in purchases}) == 325
    assert [p.line for p in read(sample, 3)] == [1, 2, 3]


@given(cents=some.integers(0, 99_999_999), pieces=some.integers(1, 500))
def test_shares_add_up_to_the_cent(cents, pieces):
    """Nothing is lost or gained by splitting, and shares differ by a cent at most."""
    split = shares(Purchase(1, "c", date(1997, 1, 1), pieces, cents))
    assert sum(share.cents * share.pieces for share in split) == cents
    assert sum(share.pieces for share in split) == pieces
    assert len(split) <= 2
    if len(split) == 2:
        assert split[0].cents == split[1].cents + 1


def test_two_discs_for_29_33_are_one_of_each_price():
    """The example of the documentation."""
    split = shares(Purchase(1, "c", date(1997, 1, 1), 2, 2933))
    assert [(share.sku, share.pieces) for share in split] == [("cd-1467", 1), ("cd-1466", 1)]
