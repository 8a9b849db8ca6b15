"""From bars to the two stores that a training needs: one to learn from, one to be judged on.

    python pipelines/prepare.py strategic bars.csv --out run
    python pipelines/prepare.py strategic bars.csv --out run --scheduler tcp://host:8786
    python pipelines/prepare.py tactical bars.csv --settings my.yaml
    python pipelines/prepare.py features.py:MINE bars.csv

A YAML file holds the same settings by their names: `overlap: 12`. Flags win over it.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import grandbatch as gb
from grandbatch.errors import GrandbatchError, UsageError
from grandbatch.features import resolve_feature_set


class Stores(NamedTuple):
    """The same bars twice."""

    learning: gb.MatrixStore
    """At the set's overlap, or the one asked for."""
    every_bar: gb.MatrixStore
    """A window at every bar: what is earned bar by bar can only be told on these."""


def add_set_name(parser: argparse.ArgumentParser) -> None:
    """Add the argument that says which set."""
    parser.add_argument("set_name", help="strategic, tactical, module:NAME or path.py:NAME")


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which bars, and what is made of them."""
    parser.add_argument("inputs", nargs="+", help="CSV or Parquet files, folders, globs")
    parser.add_argument("--out", type=Path, default=Path("run"), help="folder of all results")
    parser.add_argument("--settings", type=Path, help="YAML file of settings; flags win over it")
    parser.add_argument(
        "--columns", action="append", default=[], help="column and header, such as low=Llow"
    )
    parser.add_argument("--dayfirst", action=argparse.BooleanOptionalAction, help="2/7 is in July")
    parser.add_argument("--timezone", default="UTC", help="of timestamps that name none")
    parser.add_argument("--overlap", type=int, help="rows shared by windows (the set's)")
    parser.add_argument("--max-gap", help="a larger gap, such as 1D, starts a new segment")
    parser.add_argument("--scheduler", help="address of a Dask scheduler to build on")
    parser.add_argument("--memory-limit", help="for the build, such as 2GiB")


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse flags, over the settings of a YAML file where one is given."""
    options = parser.parse_args(arguments)
    if options.settings is None:
        return options
    settings = yaml.safe_load(options.settings.read_text()) or {}
    unknown = sorted(set(settings) - (set(vars(options)) - {"set_name", "inputs", "settings"}))
    if unknown:
        raise UsageError(f"{options.settings}: unknown setting(s) {', '.join(unknown)}")
    for name, value in settings.items():
        # as text, so that argparse checks it as it checks a flag
        kept = isinstance(value, bool | list)
        parser.set_defaults(**{name: value if kept else str(value)})
    return parser.parse_args(arguments)


def prepare(set_name: str, options: argparse.Namespace) -> Stores:
    """Build both stores of a set, which may be your own (`path.py:NAME`), or reuse them."""
    feature_set = resolve_feature_set(set_name)
    length = feature_set.sequence_length
    overlap = feature_set.overlap if options.overlap is None else options.overlap
    every_bar = _build(feature_set, "every-bar", options, overlap=length - 1, layout="rows")
    if overlap == length - 1:
        return Stores(every_bar, every_bar)
    return Stores(_build(feature_set, f"overlap-{overlap}", options, overlap=overlap), every_bar)


def prepare_coarser(set_name: str, length: str, options: argparse.Namespace) -> gb.MatrixStore:
    """Build the store of a set from coarser bars of the same inputs, or reuse it."""
    feature_set = resolve_feature_set(set_name)
    overlap = feature_set.sequence_length - 1
    return _build(feature_set, length, options, overlap=overlap, resample=length)


def _build(
    feature_set: gb.FeatureSet,
    name: str,
    options: argparse.Namespace,
    resample: str | None = None,
    **settings: Any,
) -> gb.MatrixStore:
    columns = dict(entry.split("=", 1) for entry in options.columns if "=" in entry)
    if len(columns) < len(options.columns):
        raise UsageError(f"--columns wants name=header, such as low=Llow, got {options.columns}")
    client = None
    if options.scheduler:
        from distributed import Client

        client = Client(options.scheduler)
    options.out.mkdir(parents=True, exist_ok=True)
    return gb.build_store(
        options.inputs,
        options.out / f"{feature_set.name}-{name}.zarr",
        feature_set=feature_set,
        max_gap=options.max_gap,
        client=client,
        memory_limit=options.memory_limit,
        cache=options.out / "cache",
        rules=gb.BarRules(
            columns=columns,
            dayfirst=options.dayfirst,
            timezone=options.timezone,
            resample=resample,
        ),
        **settings,
    )


def run(main: Callable[[], None]) -> None:
    """Run a pipeline; end with one line and an exit code where it can't go on."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("grandbatch").setLevel(logging.INFO)
    try:
        main()
    except GrandbatchError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("ended; run the same command again to go on", file=sys.stderr)
        sys.exit(130)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare the stores of a set."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_set_name(parser)
    add_data_flags(parser)
    options = parse(parser, arguments)
    for store in dict.fromkeys(prepare(options.set_name, options)):
        print(store)


if __name__ == "__main__":
    run(main)
