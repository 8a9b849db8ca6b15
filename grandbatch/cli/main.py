"""The commands, put together; errors become one line and an exit code."""

from __future__ import annotations

import copy
import io
import logging
import os
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from grandbatch.cli.options import Quiet, Verbose, tell_as_much
from grandbatch.cli.output import explain
from grandbatch.cli.running.commands import CommandGroup
from grandbatch.cli.settings import FILE_VARIABLE
from grandbatch.errors import GrandbatchError
from grandbatch.memory.limits import check_address_space
from grandbatch.values.texts import printable
from grandbatch.version import __version__

# what typer raises for anything it can't parse; it has no public name of its own
_ParsingError: type[Any] = typer.BadParameter.__bases__[0]

_INTERRUPTED = 130

app = typer.Typer(
    name="grandbatch",
    cls=CommandGroup,
    help="Market bars larger than memory, turned into training batches.",
    epilog=(
        "Start with: grandbatch demo. Flags of commands may also be set by GRANDBATCH_* variables "
        "and in grandbatch.yaml: see grandbatch config --help."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # laid out by click: no flag is cut, however narrow the terminal
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"grandbatch {__version__}")
        raise typer.Exit


class _Plain(logging.Formatter):
    """Shows of a message what it says, never does what it says."""

    def format(self, record: logging.LogRecord) -> str:
        if not record.name.startswith("grandbatch"):
            # how it came about inside another library: what it means is told by our error
            record = copy.copy(record)
            record.exc_info = record.exc_text = record.stack_info = None
        return printable(super().format(record))


def _is_asked_for(record: logging.LogRecord) -> bool:
    """Whether to show a message: Dask sets its loggers' levels by itself, as it is imported."""
    return record.name.startswith("grandbatch") or record.levelno >= logging.getLogger().level


@app.callback()
def _options(
    version: bool = typer.Option(
        False, "--version", callback=_show_version, is_eager=True, help="Show the version."
    ),
    config_file: Annotated[
        Path | None,
        typer.Option("--config", envvar=FILE_VARIABLE, help="YAML of settings (grandbatch.yaml)."),
    ] = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    check_address_space()
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_is_asked_for)
    handler.setFormatter(_Plain("%(message)s"))
    logging.basicConfig(handlers=[handler])
    tell_as_much(verbose, quiet)


def main() -> None:
    """Run the command line and exit: 0 done, 1 the data or store is bad, 2 wrong usage."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.unraisablehook = _tell_unraisable
    try:
        code = app(prog_name="grandbatch", standalone_mode=False)
        sys.stdout.flush()
    except GrandbatchError as error:
        code = _fail(str(error), error.exit_code)
    except _ParsingError as error:
        # no message where nothing was asked for: typer has shown the help
        text = error.format_message()
        is_help = not text or "Usage:" in text
        code = 2 if is_help else _fail(f"{_clause(text)}; {_remedy(error)}", 2)
    except (KeyboardInterrupt, typer.Abort):
        code = _INTERRUPTED
    except BrokenPipeError:
        # the reader of our output has gone: nothing to say, and nowhere to say it
        _drop_output()
        code = 0
    except OSError as error:
        code = _fail(explain(error), 1)
        if error.filename is None:
            _drop_output()
    except (MemoryError, RuntimeError, ImportError, SystemError) as error:
        if not _is_memory(error):
            raise
        code = _fail(
            f"no memory could be had ({_first_line(error)}); raise the limit (ulimit -v tells it), "
            "or let the command use less, or start fewer workers",
            1,
        )
    if code == _INTERRUPTED:
        _fail("stopped; run the same command again to go on", code)
    sys.exit(code if isinstance(code, int) else 0)


def _clause(text: str) -> str:
    """Make a clause of what typer says in sentences, of which the last may be a question."""
    return re.sub(r"\.? Did you mean (.+\?)$", r" (did you mean \1)", text.rstrip("."))


def _drop_output() -> None:
    """Let what is still to be written go nowhere: it would fail again as the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_memory(error: BaseException) -> bool:
    """Whether memory ran out: some packages say so in words only."""
    said = (
        "allocate memory", "not enough memory", "can't start new thread", "bad_alloc",
        "failed to map segment", "without setting an exception",
    )  # fmt: skip
    return isinstance(error, MemoryError) or any(one in str(error) for one in said)


def _tell_unraisable(unraisable: Any) -> None:
    """Say in one line what ran out of memory where Python can't raise, instead of a traceback."""
    error = unraisable.exc_value
    if error is not None and _is_memory(error):
        _say(f"warning: no memory could be had in {unraisable.object!r:.200}")
    else:
        sys.__unraisablehook__(unraisable)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _remedy(error: Any) -> str:
    """Say where to read on, or what is meant where a store is given as other commands take it."""
    command = error.ctx.command_path if error.ctx else "grandbatch"
    if getattr(error, "option_name", None) == "--store":
        stores = [one.metavar for one in error.ctx.command.params if one.name == "store"]
        if stores:
            return f"the store is given without it: {command} {stores[0]}"
    return f"see {command} --help"


def _fail(message: str, code: int) -> int:
    _say(f"error: {message}")
    return code


def _say(line: str) -> None:
    with suppress(OSError):  # a full disk, or nobody at the other end
        print(printable(line), file=sys.stderr)
