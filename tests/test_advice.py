"""Whatever a message says to type can be typed: each flag stands with its value, and was tried.

Texts of the package are scanned, so that an advice which nothing tries fails here.
"""

import ast
import re
from pathlib import Path

import pytest
from advice import TYPED

import grandbatch

PACKAGE = Path(grandbatch.__file__).parent
TESTS = Path(__file__).parent
_NAMED = re.compile(r"^--[a-z-]+ (?=must |wants )")
"""What a value was given by."""
_FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*")

TRIED = {
    "--context strategic=slow.zarr": "experiment/test_hierarchical_experiments.py",
    "--context {}=slow.zarr": "experiment/test_hierarchical_experiments.py",
    "--bar-duration 5min": "loader/test_loader_lookahead.py",
    "--run-length 1": "cli/test_advised_flags.py",
    "--set strategic": "serving/test_live_teams.py",
    "--set features.py:{}": "serving/test_live_teams.py",
    "--json": "cli/test_cli_shown.py",
    "--take-over": "serving/test_live_teams.py",
    "--session-start {}": "bars/test_bars_sessions.py",
    "--bar-duration {}s": "bars/test_resampling.py",
    "--price-scale 1e-9": "bars/test_joined_instruments.py",
    "--sort": "bars/test_bars_sessions.py",
    "--symbol-from filename": "bars/test_columns_beside.py",
    "--dayfirst": "bars/test_bars_meanings.py",
    "--no-dayfirst": "bars/test_bars_meanings.py",
    "--duplicates first": "bars/test_bars_duplicates.py",
    "--duplicates last": "bars/test_bars_duplicates.py",
    "--duplicates {}": "bars/test_bars_duplicates.py",
    "--no-volume": "bars/test_vendors_texts.py",
    "--allow-non-positive": "bars/test_bars_meanings.py",
    "--decimal ,": "bars/test_bars_formats.py",
    "--grouped": "bars/test_vendors_texts.py",
    "--no-header {}{}": "bars/test_vendors_texts.py",
    "--memory-limit {}MiB": "cli/test_advised_flags.py",
    "--partition-bars {}": "cli/test_advised_flags.py",
    "--chunk-windows {}": "cli/test_advised_flags.py",
    "--layout windows": "cli/test_advised_flags.py",
    "--engine overlap": "builder/test_build.py",
    "--scheduler threads": "cli/test_advised_flags.py",
    "--order period": "cli/test_advised_flags.py",
    "--overwrite": "cli/test_advised_flags.py",
    "--cache {}": "bars/test_bars_damage.py",
    "--only {},": "bars/test_bars_damage.py",
    "--extra {}": "features/test_inputs.py",
    "--overlap {}": "evaluation/test_evaluation.py",
    "--layout rows": "evaluation/test_evaluation.py",
    "--no-resume": "cli/test_advised_flags.py",
    "--since-last": "cli/test_advised_flags.py",
    "--init-from {}": "cli/test_advised_flags.py",
    "--epochs %d": "cli/test_advised_flags.py",
    "--epochs {}": "experiment/test_honest_experiments.py",
    "--split 0.7,0.15,0.15": "cli/test_advised_flags.py",
    "--config {}": "cli/test_cli_settings.py",
    "--help": "cli/test_advised_flags.py",
}
"""What messages offer, each with the tests that type it."""

OFFERED = {
    "--columns": "bars/test_vendors_texts.py",
    "--delimiter": "bars/test_vendors_texts.py",
    "--encoding": "bars/test_vendors_texts.py",
    "--extra": "bars/test_extra_columns.py",
    "--fill": "bars/test_extra_columns.py",
    "--epoch-unit": "bars/test_bars_meanings.py",
    "--ignore-columns": "bars/test_columns_beside.py",
    "--max-bad-fraction": "bars/test_bars_formats.py",
    "--symbol-from": "bars/test_joined_instruments.py",
    "--ohlc-tolerance": "bars/test_bars_ranges.py",
    "--leave-out": "cli/test_watching.py",
    "--names": "bars/test_vendors_texts.py",
    "--symbol": "bars/test_joined_instruments.py",
    "--timestamp-format": "bars/test_vendors_texts.py",
    "--timezone": "bars/test_bars_meanings.py",
    "--where": "bars/test_columns_beside.py",
}
"""Flags whose value is computed and quoted by `grandbatch.bars.rules.flags`, alike."""

SUBJECTS = {
    "no shared memory could be had for worker processes (/dev/shm is full, missing or read-only, "
    "or ulimit -f is too low); give it room (docker run --shm-size 1g), or use num_workers=0",
    "since_last=True (--since-last) goes on from the training before with all that is new: "
    "leave out resume=False (--no-resume), splits (--split) and subset=",
    "--context and --leader are of a hierarchical team: grandbatch train hierarchical",
    "--context {}=… is given twice; leave one out",
    "a team has one leader: leave out leader= (--leader) or leading= (--train-leader)",
    "--where wants header=text, such as publisher_id=2, got {}",
    "--train-until and --test-from belong together; give both",
    "--split %s leaves the last %.3g %% of the windows out: nothing learns from them, and nothing "
    "is judged by them",
    "--train and --checkpoint-dir belong together; give both, or none",
    "--every",
    "--settle",
    "--embargo lies between splits: give --split 0.7,0.15,0.15 as well",
    "--split gives shares, --train-until and --test-from times; give one",
    "--memory-limit",
    "--store",
    "--train-until",
    "--test-from",
    "--aggregate",
}
"""Texts about a flag that was typed."""


def texts_of(tree):
    """Texts of a module but for docstrings and the help of flags; what is filled in is ``{}``."""
    passed = set()
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            passed.add(body[0].value)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("Option", "Argument"):
            passed.update(ast.walk(node))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            passed.update(node.values)
            parts = (part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
            yield "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in passed:
            yield node.value


def advices(text):
    """Flags that a text names, each with its value: switches have none, any other has."""
    for flag in _FLAG.finditer(_NAMED.sub("", text)):
        word = re.match(r" [^\s;)]*", flag.string[flag.end() :])
        alone = flag[0] in TRIED or not word
        yield flag[0] if alone else flag[0] + (word[0].rstrip(".") if len(word[0]) > 2 else word[0])


def unknown(text):
    """Advices of a text that nothing tries."""
    if text in SUBJECTS or text in OFFERED:
        return []
    for typed in TYPED:
        text = text.replace(typed, "")
    return [
        advice
        for advice in advices(text)
        if advice.rstrip(",") not in TRIED and advice not in TRIED
    ]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_whatever_a_message_offers_is_tried(path):
    for text in texts_of(ast.parse(path.read_text())):
        assert not unknown(text), text


def test_tests_that_try_an_advice_know_its_flag():
    for advice, test in {**TRIED, **OFFERED}.items():
        text = (TESTS / test).read_text()
        name = advice.split()[0].removeprefix("--")
        python = name.replace("-", "_")
        assert any(word in text for word in (name, python, "follow(")), f"{test}: {advice}"
