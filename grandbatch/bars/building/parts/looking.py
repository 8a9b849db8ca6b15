"""What in clean bars is worth a look: nothing is dropped for it.

Numbers of a part can be joined with those of the next, so that what is told doesn't depend on how
bars are parted.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from grandbatch.bars.building.parts.assembly import PART_ROWS
from grandbatch.bars.cache.digests import CacheFile, CacheFiles, PartDigests, read_rows
from grandbatch.bars.cache.extremes import FACTS, Extremes, ManyExtremes, extremes_of
from grandbatch.bars.cache.manifest import Part
from grandbatch.bars.rules import BarRules
from grandbatch.files.locations import is_remote, location_of
from grandbatch.files.verbs import each
from grandbatch.kernels.bars.looks import LOWEST_POWER, N_BINS
from grandbatch.scheduling import Schedule
from grandbatch.store.notes import shown_name
from grandbatch.values.times import shown

RARE_VOLUME = 1000.0
"""A volume that many times what half the bars with volume have is worth a look."""
FIXED_POINT = 1e8
"""So are prices that are whole numbers of such a size."""
NO_VOLUME = 0.5
"""So is such a share of bars without volume."""


def pack_looks(looks: ManyExtremes) -> dict[str, str]:
    """Write looks as JSON types: numbers little-endian and base64, of volumes those there are."""
    volumes = looks.volumes.ravel()
    at = np.flatnonzero(volumes)
    columns = {"facts": looks.facts, "at": at.astype("<i8"), "volumes": volumes[at].astype("<i8")}
    return {name: base64.b64encode(of.tobytes()).decode() for name, of in columns.items()}


def unpack_looks(value: Mapping[str, str]) -> ManyExtremes:
    """Read what `pack_looks` gave."""
    raw = {name: base64.b64decode(text) for name, text in value.items()}
    facts = np.frombuffer(raw["facts"], FACTS)
    volumes = np.zeros((len(facts), N_BINS), np.int64)
    volumes.ravel()[np.frombuffer(raw["at"], "<i8")] = np.frombuffer(raw["volumes"], "<i8")
    return ManyExtremes(facts, volumes)


def look_at(
    target: Path,
    parts: Sequence[Part],
    schedule: Schedule,
    known: Mapping[PartDigests, Extremes],
) -> list[Extremes]:
    """Extremes at some parts of a cache, in bars order; those of parts that are `known` are so."""
    others = [part for part in parts if part.digests not in known]
    tasks = [partial(look_at_parts, str(target), run) for run in runs_of_parts(others)]
    found = iter([look for looks in schedule.run(tasks) for look in looks])
    return [known.get(part.digests) or next(found) for part in parts]


def runs_of_parts(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Gather parts into runs of about as many bars as one has at most."""
    run: list[Part] = []
    rows = 0
    for part in parts:
        if run and rows + part.rows > PART_ROWS:
            yield run
            run, rows = [], 0
        run.append(part)
        rows += part.rows
    if run:
        yield run


def look_at_parts(target: str, parts: Sequence[Part]) -> list[Extremes]:
    """Extremes at some parts of a cache."""
    folder = location_of(target)
    if is_remote(folder):
        return each(lambda part: _look_at(CacheFile(folder, part.path), part), parts, far=True)
    with closing(CacheFiles(folder, most_open=1)) as files:
        return [_look_at(files[part.path], part) for part in parts]


def _look_at(file: CacheFile, part: Part) -> Extremes:
    times, prices = np.empty(part.rows, np.int64), np.empty((3, part.rows))
    columns = "timestamp", "high", "low", "volume"
    read_rows(file, part.digests, (0, part.rows), columns, (times, *prices))
    return extremes_of(times, *prices)


def worth_a_look(
    symbols: Sequence[str], parts: Sequence[Part], looks: ManyExtremes, rules: BarRules
) -> list[str]:
    """Say in one line for each kind what is worth a look.

    Parameters
    ----------
    symbols : sequence of str
    parts : sequence of Part
        In bars order.
    looks : ManyExtremes
        At each of them.
    rules : BarRules
    """
    codes = np.array([part.symbol for part in parts], np.int64)
    begins = np.flatnonzero(np.append(True, codes[1:] != codes[:-1])[: len(codes)])
    names = [shown_name(symbols[code]) for code in codes[begins]]
    by_name = dict(zip(names, looks.joined(begins), strict=True))
    lines = [_fixed_points(by_name) if rules.price_scale == 1 else "", _leaps(by_name)]
    if not rules.no_volume:
        lines += [_rare_volumes(by_name), _no_volumes(by_name)]
    return [line for line in lines if line]


def _fixed_points(looks: dict[str, Extremes]) -> str:
    found = {
        name: look.least_whole for name, look in looks.items() if look.least_whole >= FIXED_POINT
    }
    if not found:
        return ""
    name, others = _worst(found)
    return (
        f"the prices of {name} are whole numbers from {found[name]:,.0f} on{others}; if they are "
        "in billionths, as Databento's, add --price-scale 1e-9"
    )


def _leaps(looks: dict[str, Extremes]) -> str:
    found = {name: look.largest_leap for name, look in looks.items() if look.n_leaps}
    if not found:
        return ""
    name, others = _worst(found)
    look = looks[name]
    times = "once" if look.n_leaps == 1 else f"{look.n_leaps:,} times"
    return (
        f"the price of {name} leaps from one bar to the next {times}, first at "
        f"{shown(look.leap_time)}, up to {look.largest_leap:,.4g}-fold or to such a part{others}"
    )


def _rare_volumes(looks: dict[str, Extremes]) -> str:
    found = {}
    for name, look in looks.items():
        usual = _usual_volume(look)
        if look.most_volume > RARE_VOLUME * usual:
            found[name] = look.most_volume / usual
    if not found:
        return ""
    name, others = _worst(found)
    look = looks[name]
    return (
        f"the volume of {name} reaches {look.most_volume:,.10g} at {shown(look.most_time)}, where "
        f"half its bars with volume have less than {_usual_volume(look):,.10g}{others}"
    )


def _usual_volume(look: Extremes) -> float:
    """Return the least power of two above at least half the volumes that aren't 0."""
    below = np.cumsum(look.volumes[1:])
    place = int(np.searchsorted(below, below[-1] / 2))
    return float(2.0 ** (LOWEST_POWER + place + 1))


def _no_volumes(looks: dict[str, Extremes]) -> str:
    found = {}
    for name, look in looks.items():
        share = float(look.volumes[0] / look.volumes.sum())
        if share >= NO_VOLUME:
            found[name] = share
    if not found:
        return ""
    name, others = _worst(found)
    return f"{found[name]:.1%} of the bars of {name} have no volume{others}"


def _worst(found: dict[str, float]) -> tuple[str, str]:
    """Return the symbol of the largest value, and a word on how many others there are."""
    name = max(found, key=lambda name: found[name])
    others = len(found) - 1
    plural = "symbol" if others == 1 else "symbols"
    return name, f" (and of {others:,} more {plural})" if others else ""
