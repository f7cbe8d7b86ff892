"""What is kept while there is no Redis."""

from time import monotonic

from app.gateway.brief import ENTRIES_MAX, LIFETIME_S, Brief


def test_an_entry_is_good_for_half_a_second_from_when_it_was_true():
    """However late it was kept."""
    brief: Brief[str] = Brief()
    brief.keep("new", "a", as_of=monotonic())
    brief.keep("old", "b", as_of=monotonic() - LIFETIME_S)
    assert brief.get("new") == "a"
    assert brief.get("old") is None
    brief.forget("new")
    assert brief.get("new") is None


def test_the_oldest_entries_go_first():
    """There is room for so many."""
    brief: Brief[int] = Brief()
    for number in range(ENTRIES_MAX + 1):
        brief.keep(str(number), number, as_of=monotonic())
    assert brief.get("0") is None
    assert brief.get("1") == 1
    assert brief.get(str(ENTRIES_MAX)) == ENTRIES_MAX
