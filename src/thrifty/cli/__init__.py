"""The command line: one subcommand a verb; results to stdout, progress to stderr, exit 0 only on success."""

import sys

import thrifty.cli.runs
import thrifty.cli.scaling
import thrifty.cli.serving
import thrifty.cli.ui  # noqa: F401 - subcommands stand in the help in the order of these
from thrifty.cli.app import app
from thrifty.errors import ThriftyError

__all__ = ["app", "main"]


def main() -> None:
    """Run the command line; an error a user can mend is one line on stderr and an exit code of its own."""
    try:
        app()
    except ThriftyError as error:
        print(f"thrifty: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(1)
