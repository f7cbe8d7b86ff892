"""Months as people write them."""

import pytest

from app.infra.archive.months import month_of, shown


@pytest.mark.parametrize("text", ["0001-01", "0987-12", "2026-08", "9999-12"])
def test_a_month_is_shown_as_it_was_typed(text: str):
    """With all digits of its year, early ones too."""
    assert shown(month_of(text)) == text
