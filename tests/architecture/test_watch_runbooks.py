"""Each alert has a page for the night, and what the page says to type exists."""

import re
from functools import cache
from pathlib import Path

import pytest

from app import __main__ as program
from tests.architecture.watched import ROOT, RULE_FILES, RUNBOOKS, alerts

SECTIONS = ["What it means", "How to be sure", "What to type", "What it is not", "Whom to wake"]
INDEX = ROOT / "docs" / "runbooks" / "README.md"
_COMMAND = re.compile(r"^\$ (?:kubectl exec \S+ -- )?holdfast ([^#|>\n]+)", re.MULTILINE)
_LOGGED = re.compile(r"^\$ kubectl logs .* grep (?:-E )?'?([a-z_|]+)'?$", re.MULTILINE)


def text(page: Path) -> str:
    """A page."""
    return page.read_text(encoding="utf-8")


def named(page: Path) -> str:
    """A page's alert."""
    return page.stem


@cache
def source() -> str:
    """The whole program."""
    return "\n".join(file.read_text(encoding="utf-8") for file in sorted((ROOT / "app").rglob("*.py")))


def test_every_alert_has_a_page_and_every_page_an_alert():
    """A page of an alert that is no more sends somebody the wrong way."""
    assert {page.stem for page in RUNBOOKS} - {"README"} == set(alerts())


def test_the_index_lists_every_page_with_its_severity():
    """Who does not know the alert's name finds it there."""
    rows = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \| (page|ticket) \| .+ \|$", text(INDEX), re.MULTILINE)
    assert {name: severity for name, _, severity in rows} == {
        name: rule["labels"]["severity"] for name, rule in alerts().items()
    }
    assert all(name == file for name, file, _ in rows)


@pytest.mark.parametrize("page", [page for page in RUNBOOKS if page != INDEX], ids=named)
def test_a_page_answers_the_five_questions(page: Path):
    """In this order, each with something to read, and says which rule it is about."""
    title, *rest = re.split(r"^#+ (.+)$", text(page), flags=re.MULTILINE)[1:]
    assert title == page.stem
    assert rest[1::2] == SECTIONS
    assert all(part.strip() for part in rest[0::2])
    severity, file = re.findall(r"`([^`]+)`", rest[0])[0::2][:2]
    assert severity == alerts()[page.stem]["labels"]["severity"]
    assert f"- alert: {page.stem}\n" in (ROOT / file).read_text(encoding="utf-8")
    assert ROOT / file in RULE_FILES


@pytest.mark.parametrize("page", RUNBOOKS, ids=named)
def test_links_lead_somewhere(page: Path):
    """At night nobody searches."""
    for target in re.findall(r"\]\(([^)#]+)\)", text(page)):
        assert (page.parent / target).exists(), target


def commands() -> list[str]:
    """What the pages say to type of this program."""
    found = [found for page in RUNBOOKS for found in _COMMAND.findall(text(page))]
    return sorted({re.sub(r"\s+", " ", one).strip(" …") for one in found})


@pytest.mark.parametrize("line", commands())
def test_a_command_of_ours_is_one_that_there_is(
    line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The command, its subcommand and each option are in the program's own help."""
    words = line.split()
    options = [word for word in words if word.startswith("--")]
    assert words[0] in program.COMMANDS
    subcommand = words[1:2] if words[0] in {"dlq", "audit", "mails", "keys", "events"} else []
    monkeypatch.setattr("sys.argv", ["holdfast", words[0], *subcommand, "--help"])
    with pytest.raises(SystemExit, match=r"^0$"):
        program.main()
    helped = capsys.readouterr().out
    assert f"usage: holdfast {' '.join([words[0], *subcommand])} " in helped
    assert [option for option in options if option not in helped] == []


def test_what_is_looked_for_in_the_logs_is_logged():
    """A line that is called otherwise by now is never found."""
    looked_for = {
        name
        for page in RUNBOOKS
        for names in _LOGGED.findall(text(page))
        for name in names.split("|")
        if "_" in name
    }
    assert looked_for
    assert {name for name in looked_for if f'"{name}"' not in source()} == set()
