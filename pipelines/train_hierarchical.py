"""Train and evaluate a team that sees two timeframes, from one file of bars to a judged model.

    python pipelines/train_hierarchical.py bars.csv --out run-hierarchical --resample 30min

The bars as they are become tactical windows, those of `--resample` strategic ones. On each training
split a strategic team learns first; then a tactical team that sees both windows, and what the
strategic one would hold (`--no-leader` leaves that out). Ctrl-C ends it with a checkpoint; the same
command goes on. `--help` lists the settings, which a YAML file (`--settings`) may hold as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace

from prepare import prepare, prepare_coarser, run
from training import make_parser, run_judged, walk

import grandbatch as gb
from grandbatch.errors import UsageError
from grandbatch.ranks import Ranks


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and evaluate hierarchical teams."""
    config = gb.BatchConfig.hierarchical()
    parser = make_parser("tactical", config)
    parser.description = "Train and evaluate a team that sees two timeframes."
    parser.set_defaults(overlap=config.overlap)
    add = parser.add_argument
    add("--resample", default="30min", help="length of the coarser bars")
    add("--max-age", help="leave out windows whose coarser one is older, such as 2h")
    add(
        "--leader",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="train a strategic team first, whose exposures are seen",
    )
    run_judged(parser, judge, arguments)


def judge(options: argparse.Namespace, ranks: Ranks) -> gb.Evaluation:
    """Train on each split with each seed, and trade what follows it."""
    if options.init_from is not None:
        raise UsageError("--init-from is of trainings of one team; here each fold has two")
    learning, every_bar = prepare("tactical", options)
    slow = prepare_coarser("strategic", options.resample, options)
    above = replace(gb.BatchConfig.strategic(), overlap=slow.overlap)
    return walk(
        learning,
        every_bar,
        gb.BatchConfig.hierarchical(),
        options,
        ranks,
        context={"strategic": slow},
        max_age=options.max_age,
        leading=above if options.leader else None,
    )


if __name__ == "__main__":
    run(main)
