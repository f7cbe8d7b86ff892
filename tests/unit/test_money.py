"""Money as people read it."""

import pytest

from app.domain.money import Money, as_text


@pytest.mark.parametrize(
    ("amount", "currency", "text"),
    [
        (1467, "USD", "14.67 USD"),
        (5, "EUR", "0.05 EUR"),
        (0, "USD", "0.00 USD"),
        (-1205, "USD", "-12.05 USD"),
        (1467, "JPY", "1467 JPY"),
        (1467, "KWD", "1.467 KWD"),
        (99_999_999, "GBP", "999999.99 GBP"),
    ],
)
def test_money_has_as_many_decimals_as_its_currency(amount: int, currency: str, text: str):
    """None in Japan, three in Kuwait."""
    assert as_text(Money(amount, currency)) == text
