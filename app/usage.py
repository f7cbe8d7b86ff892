"""How every command reads its arguments: wrong usage is one line on stderr and exit code 64.

Guarantees nothing else; it holds no state, so nothing is lost if the process dies here.
"""

import argparse
from typing import Final, NoReturn

EXIT_USAGE: Final = 64


class Parser(argparse.ArgumentParser):
    """argparse with our exit code; its subcommands are parsed in the same way."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, and end the program."""
        self.exit(EXIT_USAGE, f"{self.prog}: {message}\n")
