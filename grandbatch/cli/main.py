"""The commands, put together; errors become one line and an exit code."""

from __future__ import annotations

import logging
import os
import sys

import click
import typer

from grandbatch.cli import building, demo, stores, training
from grandbatch.errors import GrandbatchError
from grandbatch.version import __version__

app = typer.Typer(
    name="grandbatch",
    help="Market bars larger than memory, turned into training batches.",
    epilog="Start with: grandbatch demo",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for command in (
    building.simulate,
    building.plan,
    building.build,
    stores.inspect,
    stores.verify,
    stores.stream,
    training.train,
    demo.demo,
):
    app.command()(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"grandbatch {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version."
    ),
) -> None:
    logging.basicConfig(format="%(message)s", level=logging.WARNING, stream=sys.stderr)
    logging.getLogger("grandbatch").setLevel(logging.INFO)


def main() -> None:
    """Run the command line and exit: 0 done, 1 the data or store is bad, 2 wrong usage."""
    try:
        code = app(standalone_mode=False)
    except GrandbatchError as error:
        code = _fail(str(error), error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message())
        code = 2
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        hint = f"; see {context.command_path} --help" if context else ""
        code = _fail(error.format_message().rstrip(".") + hint, 2)
    except (KeyboardInterrupt, click.Abort):
        code = _fail("stopped; run the same command again to go on", 130)
    except BrokenPipeError:
        # the reader of our output has gone: nothing to say, and nowhere to say it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code
