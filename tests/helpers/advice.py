"""What an error offers, pasted into a shell.

Every test of an error that offers flags goes through here: the flags are taken from its text, a
shell parts them into words, and the command line turns these into rules.
"""

import re
import subprocess
from dataclasses import fields, replace

import typer
from typer.testing import CliRunner

from grandbatch.bars.rules import BarRules
from grandbatch.cli.options import with_rules

_WORD = re.compile(r"""(?:'[^']*'|"[^"]*"|\\.|[^\s'"\\])+""")
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_DEFAULTS = BarRules()
TYPED = {
    "the bars cache (--cache)",
    "the cache of a store (--store-cache)",
    "checkpoints (--checkpoint-dir)",
    "the folder of stores (--folder)",
    "the trace (--trace)",
    "(--memory-limit)",
}
"""What was typed, named; the last is where a limit comes from."""
SWITCHES = {
    *("--no-volume", "--grouped", "--sort", "--dayfirst", "--no-dayfirst", "--header"),
    *("--no-header", "--allow-non-positive", "--overwrite", "--no-resume", "--help"),
    *("--since-last", "--take-over"),
}


def offers(text):
    """Flags that an error offers, as they stand in it: those that follow each other are one."""
    found = []
    at = 0
    for typed in TYPED:
        text = text.replace(typed, "")
    while flag := _FLAG.search(text, at):
        stop = flag.end()
        if flag[0] not in SWITCHES:
            word = _WORD.match(text, stop + 1)
            assert word, f"{flag[0]} has no value in: {text}"
            value = word[0].partition(")")[0] if text[flag.start() - 1] == "(" else word[0]
            assert not value.startswith("--"), f"{flag[0]} has no value in: {text}"
            stop = word.start() + len(value)
        if found and text[at : flag.start()] == " ":
            found[-1] += text[at:stop]
        else:
            found.append(text[flag.start() : stop])
        at = stop
    return found


def words(flags):
    """Part flags as a shell does."""
    done = subprocess.run(
        ["/bin/sh", "-c", f"printf '%s\\0' end {flags}"], capture_output=True, text=True, check=True
    )
    return done.stdout.split("\0")[1:-1]


def rules_of(flags):
    """Rules that flags make on the command line."""
    found = []

    def command(*, rules: BarRules) -> None:
        found.append(rules)

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(with_rules(command))
    done = CliRunner().invoke(app, words(flags), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return found[0]


def follow(text, rules=_DEFAULTS):
    """Rules with each of the things that an error offers, one after the other."""
    for flags in offers(text):
        offered = rules_of(flags)
        changed = {
            field.name: getattr(offered, field.name)
            for field in fields(BarRules)
            if getattr(offered, field.name) != getattr(_DEFAULTS, field.name)
        }
        if "columns" in changed:
            changed["columns"] = {**rules.columns, **changed["columns"]}
        assert changed, f"{flags} changes nothing"
        yield replace(rules, **changed)
