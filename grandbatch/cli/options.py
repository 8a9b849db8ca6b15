"""Flags that several commands share."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from grandbatch.bars.rules import BarRules
from grandbatch.bars.rules.flags import split_columns, split_list
from grandbatch.builder.settings import StoreSettings, make_settings
from grandbatch.cli.running.loading import loaded
from grandbatch.cli.settings import take_files
from grandbatch.config import BatchSize
from grandbatch.errors import UsageError

Inputs = Annotated[
    list[str],
    typer.Argument(
        help="CSV or Parquet files, folders or globs; paths or URLs.", show_default=False
    ),
]
SetName = Annotated[
    str,
    typer.Argument(
        metavar="SET",
        help="Feature set: strategic, tactical, alpha158, or your own: module:NAME, path.py:NAME.",
    ),
]
StoreOption = Annotated[Path, typer.Option("--store", help="Where the store is, or is to be.")]
StoreArgument = Annotated[Path, typer.Argument(metavar="STORE", help="A finished store.")]
StoreCache = Annotated[
    Path | None,
    typer.Option(
        help="Folder on a local disk where files of a store at a URL are kept for later epochs."
    ),
]
StoreCacheBytes = Annotated[
    str, typer.Option(help="How much of it, such as 20GiB; what finds no room is read each time.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Tell more on stderr.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print nothing but errors.")]

Overlap = Annotated[
    int | None,
    typer.Option(help="Rows that neighbouring windows share (strategic 12, tactical 15)."),
]
SequenceLength = Annotated[
    int | None,
    typer.Option(help="Rows in a window (strategic 48, tactical 60)."),
]
Layout = Annotated[str, typer.Option(help="windows, or rows: each feature row stored once.")]
ChunkWindows = Annotated[
    int | None, typer.Option(help="Windows in a chunk (256 where most rows are shared, or 1024).")
]
MaxGap = Annotated[
    str | None, typer.Option(help="A larger gap starts a new segment, e.g. 1D (no gap does).")
]
Targets = Annotated[
    list[str] | None,
    typer.Option(help="Kept for each window, e.g. forward_return:5,triple_barrier:0.01:0.01:60."),
]
Codec = Annotated[str, typer.Option(help="auto, none, lz4 or zstd.")]
Order = Annotated[
    str, typer.Option(help="symbol, or period: new bars touch the files of the last periods only.")
]
Period = Annotated[
    str | None,
    typer.Option(help="Of --order period: calendar days to years, e.g. 1D, 1W, 1Q, 1Y (1M)."),
]
PartitionBars = Annotated[
    int | None, typer.Option(help="Bars in a partition; never changes the store.")
]
Scheduler = Annotated[
    str | None, typer.Option(help="threads, sync, or the address of a Dask scheduler.")
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, max=1024, help="Local worker processes; threads with --scheduler threads."),
]
MemoryLimitOption = Annotated[
    str | None, typer.Option("--memory-limit", help="Of all processes together, e.g. 2GiB.")
]
Cache = Annotated[
    Path | None, typer.Option(help="Folder of the bars cache (.grandbatch/bars beside the store).")
]

Columns = Annotated[
    list[str] | None,
    typer.Option(help="Name a column's header, e.g. low=Llow; may be repeated."),
]
Header = Annotated[
    bool | None,
    typer.Option("--header/--no-header", help="Whether the first line is one (told by its looks)."),
]
Names = Annotated[
    str | None,
    typer.Option(help="What the columns are called, e.g. timestamp,open,high,low,close,volume."),
]
Delimiter = Annotated[str | None, typer.Option(help="Mark between fields (told by the header).")]
Decimal = Annotated[
    str | None, typer.Option(help="Mark before decimals: a point or a comma (as numbers look).")
]
Sort = Annotated[bool, typer.Option("--sort", help="Sort bars by symbol and time, out of core.")]
TimestampFormat = Annotated[
    str | None, typer.Option(help="strptime form of the timestamps, e.g. '%d/%m/%Y %H:%M'.")
]
DayFirst = Annotated[
    bool | None,
    typer.Option("--dayfirst/--no-dayfirst", help="Whether 2/7 is the 2nd of July (by evidence)."),
]
EpochUnit = Annotated[
    str | None,
    typer.Option(help="s, ms, us or ns: what timestamps that are numbers count (by evidence)."),
]
Timezone = Annotated[
    str,
    typer.Option(help="Zone of timestamps that name none, or e.g. America/New_York+07:00."),
]
SessionStart = Annotated[
    str | None,
    typer.Option(help="Times from e.g. 18:00 on belong to the last date before theirs."),
]
AllowNonPositive = Annotated[
    bool, typer.Option("--allow-non-positive", help="Accept prices at or below zero.")
]
Duplicates = Annotated[
    str, typer.Option(help="Which row of a symbol and time stands: first, last, or raise.")
]
OhlcTolerance = Annotated[
    float, typer.Option(help="Share of a price by which high and low may miss the others.")
]
MaxJump = Annotated[
    float | None,
    typer.Option(help="Quarantine bars that leap out and back by a larger share, e.g. 0.5."),
]
MaxBadFraction = Annotated[float, typer.Option(help="Share of rows that may be quarantined.")]
OnBadRows = Annotated[str, typer.Option(help="quarantine, or raise at the first bad row.")]
Symbol = Annotated[str | None, typer.Option(help="The symbol of all bars.")]
SymbolFrom = Annotated[
    str | None,
    typer.Option(help="filename, or a pattern with a group over the path, e.g. '([A-Z]+)-1m-'."),
]
Extra = Annotated[
    list[str] | None,
    typer.Option(help="Numeric columns to keep behind the five, e.g. vwap,trades."),
]
Fill = Annotated[
    list[str] | None,
    typer.Option(help="What stands where an extra column has no value: funding=last, or zero."),
]
IgnoreColumns = Annotated[
    list[str] | None,
    typer.Option(help="Columns that are read over, e.g. exchange,note: texts may change."),
]
Where = Annotated[
    list[str] | None,
    typer.Option(help="Rows to read, by a column's text, e.g. publisher_id=2; may be repeated."),
]
NoVolume = Annotated[bool, typer.Option("--no-volume", help="There is no volume; it is 0.")]
PriceScale = Annotated[float, typer.Option(help="What prices are multiplied by, e.g. 1e-9.")]
Grouped = Annotated[
    bool, typer.Option("--grouped", help="Numbers may be written 1,234.5 or 1.2M (K, M, B, T).")
]
Encoding = Annotated[str | None, typer.Option(help="Of the text, e.g. gbk, utf-16 (UTF-8).")]

Resample = Annotated[
    str | None, typer.Option(help="Gather bars in those of a coarser timeframe, e.g. 30min.")
]
ResampleOffset = Annotated[
    str | None, typer.Option(help="When its day begins after midnight of --timezone, e.g. 18h.")
]
Aggregate = Annotated[
    list[str] | None,
    typer.Option(
        help="What it has of extra columns: last (default), first, sum, mean, min or max, "
        "e.g. trades=sum."
    ),
]
BarTime = Annotated[
    str, typer.Option(help="Whether timestamps are those of a bar's open or close.")
]
BarDuration = Annotated[
    str | None, typer.Option(help="How long a bar of the inputs lasts, e.g. 5min (as times tell).")
]


def extra_columns(extra: list[str] | None, fill: list[str] | None) -> dict[str, Any]:
    """Read --extra and --fill, as `BarRules` takes them."""
    return {
        "extra": _listed(extra),
        "fill": _pairs("--fill", "name=fill, such as funding=last", fill),
    }


def headers_of(columns: list[str] | None) -> dict[str, str]:
    """Read --columns, as `BarRules` takes it."""
    return _pairs("--columns", "name=header, such as low=Llow", columns)


@dataclass(frozen=True, kw_only=True)
class SettingFlags:
    """The flags about a store, as a shell has them."""

    set_name: SetName
    overlap: Overlap = None
    sequence_length: SequenceLength = None
    layout: Layout = "windows"
    chunk_windows: ChunkWindows = None
    max_gap: MaxGap = None
    targets: Targets = None
    codec: Codec = "auto"
    order: Order = "symbol"
    period: Period = None

    def settings(self) -> StoreSettings:
        """Make the settings that they mean."""
        taken = dict(vars(self))
        return make_settings(taken.pop("set_name"), **taken)


@dataclass(frozen=True, kw_only=True)
class RuleFlags:
    """The flags about bars, as a shell has them; each is called as the rule that it gives."""

    columns: Columns = None
    header: Header = None
    names: Names = None
    delimiter: Delimiter = None
    decimal: Decimal = None
    timestamp_format: TimestampFormat = None
    dayfirst: DayFirst = None
    epoch_unit: EpochUnit = None
    timezone: Timezone = "UTC"
    session_start: SessionStart = None
    sort: Sort = False
    allow_non_positive: AllowNonPositive = False
    duplicates: Duplicates = "first"
    ohlc_tolerance: OhlcTolerance = 1e-9
    max_jump: MaxJump = None
    max_bad_fraction: MaxBadFraction = 0.01
    on_bad_rows: OnBadRows = "quarantine"
    symbol: Symbol = None
    symbol_from: SymbolFrom = None
    ignore_columns: IgnoreColumns = None
    where: Where = None
    no_volume: NoVolume = False
    price_scale: PriceScale = 1.0
    grouped: Grouped = False
    encoding: Encoding = None
    extra: Extra = None
    fill: Fill = None
    resample: Resample = None
    resample_offset: ResampleOffset = None
    aggregate: Aggregate = None
    bar_time: BarTime = "open"
    bar_duration: BarDuration = None

    def rules(self) -> BarRules:
        """Make the rules that they mean: texts of several parts are taken apart."""
        taken: dict[str, Any] = {
            **vars(self),
            **extra_columns(self.extra, self.fill),
            "columns": headers_of(self.columns),
            "names": split_list(self.names) if self.names else (),
            "delimiter": "\t" if self.delimiter in ("\\t", "tab") else self.delimiter,
            "ignore_columns": _listed(self.ignore_columns),
            "where": _chosen_rows(self.where),
            "aggregate": _pairs("--aggregate", "name=how, such as trades=sum", self.aggregate),
        }
        return BarRules(**taken)


def _listed(texts: Sequence[str] | None) -> list[str]:
    """Take the names of a flag apart that may be repeated."""
    return [name for text in texts or [] for name in split_list(text)]


def _chosen_rows(where: Sequence[str] | None) -> dict[str, list[str]]:
    """Read --where, as `BarRules` takes it."""
    chosen: dict[str, list[str]] = {}
    for entry in where or []:
        name, equals, text = entry.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--where wants header=text, such as publisher_id=2, got {entry!r}")
        chosen.setdefault(name.strip(), []).append(text)
    return chosen


def _pairs(flag: str, wanted: str, given: Sequence[str] | None) -> dict[str, str]:
    """Take the pairs of a flag that maps names."""
    pairs = split_columns(given or [])
    for name, value in pairs:
        if not name or not value:
            raise UsageError(f"{flag} wants {wanted}, got {name or value!r}")
    return dict(pairs)


def with_rules(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all flags about bars, and the rules that they make as `rules`."""
    return gathering(command, "rules", RuleFlags, lambda flags: flags.rules())


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command all flags about a store, and the settings that they make as `settings`."""
    return gathering(command, "settings", SettingFlags, lambda flags: flags.settings())


def gathering(
    command: Callable[..., None], what: str, flags: type[Any], make: Callable[[Any], object]
) -> Callable[..., None]:
    """Put flags in a parameter's stead; the command is handed what they make."""
    taken = inspect.signature(flags, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True).parameters

    @functools.wraps(command)
    def run(**values: Any) -> None:
        made = make(flags(**{name: values.pop(name) for name in taken}))
        command(**values, **{what: made})

    shown: list[inspect.Parameter] = []
    for parameter in own.values():
        shown.extend(taken.values() if parameter.name == what else [parameter])
    return _with_flags(run, shown)


def parse_batch_size(text: str | int) -> BatchSize:
    """Read a batch size: a whole number, or "auto".

    Raises
    ------
    UsageError
        If it is neither.
    """
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"the batch size wants a whole number or auto, got {text!r}") from None


def with_verbosity(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags that say how much it tells, besides those before its name."""
    flags = inspect.signature(tell_as_much, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True).parameters

    @functools.wraps(command)
    def run(**values: Any) -> None:
        chosen = {name: values.pop(name) for name in flags}
        values.pop("config", None)  # it was heard by its callback
        if any(chosen.values()):
            tell_as_much(**chosen)
        loaded()
        command(**values)

    return _with_flags(run, [*own.values(), *flags.values(), _CONFIG])


def _take_files(context: typer.Context, chosen: Path | None) -> None:
    """Read the files of settings, before any other flag is looked at."""
    if not context.resilient_parsing:
        take_files(context, chosen or context.find_root().params.get("config_file"))


_CONFIG = inspect.Parameter(
    "config",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="YAML of settings.",
            is_eager=True,
            expose_value=False,
            callback=_take_files,
        ),
    ],
)


def tell_as_much(verbose: Verbose = False, quiet: Quiet = False) -> None:
    """Set what is logged."""
    level = logging.DEBUG if verbose else logging.ERROR if quiet else logging.INFO
    logging.getLogger().setLevel(logging.INFO if verbose else logging.WARNING)
    logging.getLogger("grandbatch").setLevel(level)


def _with_flags(
    command: Callable[..., None], parameters: Sequence[inspect.Parameter]
) -> Callable[..., None]:
    keywords = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
    # typer reads a command's flags from here
    command.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in keywords}
    return command
