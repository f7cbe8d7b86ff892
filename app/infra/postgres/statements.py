"""Named SQL: every file in `sql/` holds one noun's statements, each after a line `-- name: what it does`."""

import re
from functools import cache
from pathlib import Path
from typing import Final

_NAMED: Final = re.compile(r"^-- (\w+): .*$", re.MULTILINE)


@cache
def statements(noun: str) -> dict[str, str]:
    """The statements of `sql/<noun>.sql` by name."""
    text = (Path(__file__).parent / "sql" / f"{noun}.sql").read_text(encoding="utf-8")
    parts = _NAMED.split(text)[1:]
    return {name: body.strip() for name, body in zip(parts[::2], parts[1::2], strict=True)}
