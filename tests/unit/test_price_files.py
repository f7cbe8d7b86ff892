"""`holdfast replay --prices FILE`: what is wrong with a file ends the command before anything is asked."""

import sys

import pytest

from app.__main__ import main
from app.replay.price_files import prices_in


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """The exit code of `holdfast replay …`; nothing is there to ask."""
    monkeypatch.setattr(sys, "argv", ["holdfast", "replay", "--handler", "reprice", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    return left.value.code


def test_a_list_is_called_as_its_file_is(tmp_path):
    """Without what no name may have."""
    file = tmp_path / "März (mended).csv"
    file.write_text("sku,amount,currency\ncup,650,USD\n")
    assert prices_in(str(file)) == {
        "price_list": "M-rz -mended-",
        "prices": [{"sku": "cup", "price": {"amount": 650, "currency": "USD"}}],
    }


def test_every_wrong_line_is_said_with_its_number(monkeypatch, capsys, tmp_path):
    """Exit code 64: wrong usage."""
    file = tmp_path / "march.csv"
    file.write_text("sku,amount,currency\ncup,6.50,USD\nspoon,50,usd\n")
    assert command(monkeypatch, "--prices", str(file)) == 64
    said = capsys.readouterr().err
    assert (
        "march.csv:\nline 2: The amount has to be whole minor units (1467 for 14.67), not '6.50'.\n" in said
    )
    assert "line 3: 'usd' is no currency" in said


@pytest.mark.parametrize("name", ["missing.csv", ""])
def test_a_file_that_cannot_be_read_is_said_to_be_so(monkeypatch, capsys, tmp_path, name):
    """One that is not there, and a folder."""
    assert command(monkeypatch, "--prices", str(tmp_path / name)) == 64
    assert "cannot be read" in capsys.readouterr().err


def test_a_name_that_no_list_may_have_is_refused(monkeypatch, capsys):
    """It stands in events and in documents."""
    assert command(monkeypatch, "--price-list", "a\nb") == 64
    assert "a name is letters" in capsys.readouterr().err
