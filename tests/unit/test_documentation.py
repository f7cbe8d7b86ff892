"""The documents that speak of the code say what the code says."""

import re
from pathlib import Path

from app.config import SETTINGS, Setting
from app.domain import commands, events
from app.domain.fulfilment import FulfilmentStatus
from app.domain.ledger import Account
from app.domain.order import Status
from app.domain.payment import PaymentStatus

DOCS = Path(__file__).parents[2] / "docs"


def row(setting: Setting) -> str:
    """The line of the table for one setting."""
    default = f"`{setting.default}`" if setting.default else ""
    needed = "all" if len(set(setting.modes) - {"tool"}) == 3 else ", ".join(setting.modes)
    about = f"{setting.about} **(secret)**" if setting.secret else setting.about
    return f"| `{setting.name}` | {about} | {default} | {needed} |"


def test_the_table_of_settings_is_the_one_in_the_code():
    """Whoever adds a setting pastes its line from here into docs/CONFIGURATION.md."""
    text = (DOCS / "CONFIGURATION.md").read_text("utf-8")
    table = re.findall(r"^\| `[A-Z_]+` .*$", text.split("\n## ")[0], re.MULTILINE)
    assert table == [row(setting) for setting in SETTINGS]


def test_the_glossary_explains_every_status_and_every_account():
    """A word that users or operators read is explained where they look for it."""
    text = (DOCS / "GLOSSARY.md").read_text("utf-8")
    words = {*Status, *FulfilmentStatus, *PaymentStatus, *Account}
    assert sorted(word for word in words if f"`{word}`" not in text) == []


def test_the_glossary_is_in_alphabetical_order():
    """So that a word is found without searching."""
    terms = re.findall(r"^\*\*(.+?)\*\*", (DOCS / "GLOSSARY.md").read_text("utf-8"), re.MULTILINE)
    assert len(terms) > 25
    assert terms == sorted(terms, key=str.lower)


def test_what_the_glossary_calls_code_is_in_the_code():
    """A name that was changed is changed there too."""
    text = (DOCS / "GLOSSARY.md").read_text("utf-8")
    named = set(re.findall(r"`([A-Z][A-Za-z]+)`", text))
    known = {*vars(commands), *vars(events), "OrderWorkflow"}
    assert named - known == set()


def test_the_tests_of_bad_days_are_there():
    """Whoever renames one renames it where it is named."""
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", (DOCS / "TESTING.md").read_text("utf-8"))
    assert len(named) > 15
    folders = [DOCS.parent / "tests" / each for each in ("integration/consumer", "acceptance")]
    for file, test in named:
        found = [folder / file for folder in folders if (folder / file).exists()]
        assert any(f"def {test}(" in each.read_text("utf-8") for each in found), f"{file}::{test}"
