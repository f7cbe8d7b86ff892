"""Price lists as people hand them in: what is read, and what is wrong, line by line."""

import json

import pytest

from app.contracts import price_lists
from app.contracts.price_lists import ListedPrice, WrongPriceList, as_listed, check, read, read_csv, read_json
from app.domain.money import Money


def wrong(read, text) -> list[tuple[str, str]]:
    """What is said of a list: the places and their details."""
    with pytest.raises(WrongPriceList) as found:
        read(text)
    return [(fault.pointer, fault.detail) for fault in found.value.faults]


def test_a_list_in_csv_is_its_header_and_a_price_a_line():
    """Columns in any order, a byte order mark, spaces, empty lines and either line end are no fault."""
    for text in (
        "sku,amount,currency\ncup,650,USD\nspoon,0,USD\n",
        "\ufeffsku,amount,currency\r\ncup,650,USD\r\n\r\nspoon,0,USD",
        "currency, SKU, amount\nUSD,cup, 650\nUSD, spoon,0\n,,\n",
    ):
        assert read_csv(text) == {"cup": Money(650, "USD"), "spoon": Money(0, "USD")}


def test_a_list_in_json_is_what_json_is_everywhere():
    """Money as everywhere."""
    items = [{"sku": "cup", "price": {"amount": 650, "currency": "USD"}}]
    assert read_json(json.dumps(items)) == check([ListedPrice("cup", Money(650, "USD"))])
    assert read_json(json.dumps(items)) == {"cup": Money(650, "USD")}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("cup,6.50,USD", "whole minor units (1467 for 14.67), not '6.50'"),
        ("cup,,USD", "whole minor units"),
        ("cup,٦٥٠,USD", "whole minor units"),
        ("cup,1e3,USD", "whole minor units"),
        ("cup,-1,USD", "from 0 to 99999999 minor units, not -1"),
        ("cup,100000000,USD", "from 0 to 99999999"),
        ("cup,99999999999999999999999999,USD", "whole minor units"),
        ("a cup,650,USD", "'a cup' is no SKU"),
        (",650,USD", "'' is no SKU"),
        ("cup,650,usd", "'usd' is no currency"),
        ("cup,650", "3 columns, not 2"),
        ("cup,650,USD,", "3 columns, not 4"),
        ('"cup,650,USD', "this is no CSV: unexpected end of data"),
    ],
)
def test_what_is_wrong_with_a_line_is_said_with_its_number(line: str, said: str):
    """Nobody has to look for it."""
    ((place, detail),) = wrong(read_csv, f"sku,amount,currency\nspoon,50,USD\n{line}")
    assert place == "line 3"
    assert said.lower() in detail.lower()


def test_everything_that_is_wrong_is_said_at_once_up_to_a_limit():
    """The rest is counted."""
    text = "sku,amount,currency\n" + "cup,x,USD\n" * 30
    faults = wrong(read_csv, text)
    assert len(faults) == price_lists.FAULTS_MAX
    assert faults[1:3] == [
        ("line 3", "The amount has to be whole minor units (1467 for 14.67), not 'x'."),
        ("line 3", "cup has a price already, at line 2."),
    ]
    with pytest.raises(WrongPriceList, match=r"\nand 39 more$"):
        read_csv(text)


def test_a_file_is_json_where_it_begins_with_a_bracket_and_csv_otherwise():
    """What it is called does not matter."""
    expected = {"cup": Money(650, "USD"), "spoon": Money(0, "USD")}
    for data in (
        b"sku,amount,currency\ncup,650,USD\nspoon,0,USD",
        b"\xef\xbb\xbfsku,amount,currency\ncup,650,USD\nspoon,0,USD",
        json.dumps(as_listed(expected)).encode(),
        b"\xef\xbb\xbf \n" + json.dumps(as_listed(expected)).encode(),
    ):
        assert read(data) == expected
    assert wrong(read, b"sku,amount,currency\ncup,650,USD\nl\xf6ffel,1,USD") == [
        ("line 3", "This is no UTF-8.")
    ]


def test_a_sku_has_one_price():
    """Of two nobody could say which is meant, even where they are the same."""
    assert wrong(read_csv, "sku,amount,currency\ncup,1,USD\ncup,1,USD") == [
        ("line 3", "cup has a price already, at line 2.")
    ]


@pytest.mark.parametrize("text", ["", "cup,650,USD", "sku;amount;currency\ncup;650;USD", "sku,sku,amount\n"])
def test_a_list_without_its_header_is_refused(text: str):
    """A first line that is a price would be lost in silence."""
    assert wrong(read_csv, text) == [("line 1", "The header has to be sku,amount,currency.")]


def test_an_empty_or_an_endless_list_is_refused(monkeypatch: pytest.MonkeyPatch):
    """There is a limit, and nothing is no list."""
    assert wrong(read_csv, "sku,amount,currency\n") == [("", "There is no price in it.")]
    assert wrong(read_json, "[]") == [("", "There is no price in it.")]
    monkeypatch.setattr(price_lists, "PRICES_MAX", 1)
    assert "at most 1 prices, not 2" in wrong(read_csv, "sku,amount,currency\na,1,USD\nb,1,USD")[0][1]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{}", ""),
        ("[", ""),
        (b"[\xff]", ""),
        ('[{"sku": "cup"}]', "/0"),
        ('[{"sku": "a", "price": {"amount": 1, "currency": "USD"}}, 7]', "/1"),
        ('[{"sku": "cup", "price": {"amount": 6.5, "currency": "USD"}}]', "/0"),
        ('[{"sku": "cup", "price": {"amount": 650, "currency": "USD"}, "was": 700}]', "/0"),
        ('[{"sku": "cup", "price": {"amount": -650, "currency": "USD"}}]', "/0"),
    ],
)
def test_what_is_wrong_in_json_is_said_with_its_place(text: str, place: str):
    """As a JSON pointer into the list."""
    assert [where for where, _ in wrong(read_json, text)] == [place]
