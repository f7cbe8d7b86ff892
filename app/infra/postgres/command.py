"""`run`: what keeps a command from its database is the same line and the same exit code for all commands.

It holds nothing; if the process dies here, what the command did is what it had committed.
"""

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any, Final

import asyncpg

from app.domain.errors import Unavailable
from app.infra.postgres.pool import LoginRefusedError, WrongAddressError

EXIT_FAILED: Final = 1
EXIT_UNREACHABLE: Final = 69
EXIT_CONFIGURATION: Final = 78


def run(name: str, work: Coroutine[Any, Any, int]) -> int:
    """Do the work of `holdfast <name>`; its exit code, or the one of what kept it from its database."""
    try:
        return asyncio.run(work)
    except WrongAddressError as wrong:
        return _fail(f"holdfast: {wrong}", EXIT_CONFIGURATION)
    except LoginRefusedError as refused:
        line = "DATABASE_URL must name a database and a user that may connect to it"
        return _fail(f"holdfast: {line}: {refused.sentence}", EXIT_CONFIGURATION)
    except Unavailable as away:
        line = f"PostgreSQL (DATABASE_URL) is unreachable or busy: {away}"
        return _fail(f"holdfast {name}: {line}", EXIT_UNREACHABLE)
    except (asyncpg.UndefinedTableError, asyncpg.UndefinedColumnError) as error:
        return _fail(f"holdfast {name}: {error}; run holdfast migrate first", EXIT_FAILED)


def _fail(line: str, code: int) -> int:
    sys.stderr.write("; ".join(line.splitlines()) + "\n")
    return code
