"""The same features by other means: polars and pandas as one would write them, TA-Lib, KunQuant.

Each maker takes bars, a dict of (n,) float64, and returns a call without arguments, or None where
its library isn't installed. KunQuant compiles C++ when its call is made.

A peer that would bring other versions of what is installed here can stand in an environment of its
own: `Elsewhere` makes its calls there, in a process that stays, and tells the time they took there.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Bars = dict[str, np.ndarray]
Work = Callable[[], Any]

WINDOWS = (5, 10, 20, 30, 60)


def kunquant(bars: Bars) -> Work | None:
    """Alpha158 in float64, one thread, its predefined expressions but VWAP0."""
    try:
        from KunQuant.jit import cfake
        from KunQuant.Op import Builder, Input, Output
        from KunQuant.predefined.Alpha158 import AllData
        from KunQuant.runner import KunRunner
        from KunQuant.Stage import Function
    except ImportError:
        return None
    fields = ("open", "high", "low", "close", "volume", "amount")
    builder = Builder()
    with builder:
        data = AllData(**{name: Input(name) for name in fields})
        values, names = data.build(
            {
                "kbar": {},
                "price": {"windows": [0], "feature": [("OPEN", data.open), ("HIGH", data.high),
                                                     ("LOW", data.low)]},
                "rolling": {},
            }
        )  # fmt: skip
        for value, name in zip(values, names, strict=True):
            Output(value, name)
    compiling = cfake.KunCompilerConfig(
        dtype="double", partition_factor=4, input_layout="TS", output_layout="TS"
    )
    library = cfake.compileit(
        [("alpha158", Function(builder.ops), compiling)], "alpha158", cfake.CppCompilerConfig()
    )
    module = library.getModule("alpha158")
    executor = KunRunner.createSingleThreadExecutor()
    # it works across symbols: 8 of them side by side, each an eighth of the bars
    n = len(bars["close"]) // 8
    given = {**bars, "amount": bars["close"] * bars["volume"]}
    inputs = {name: np.ascontiguousarray(given[name][: 8 * n].reshape(8, n).T) for name in fields}
    return lambda: KunRunner.runGraph(executor, module, inputs, 0, n)


class Elsewhere:
    """A maker's call in another interpreter's process.

    Parameters
    ----------
    python : str
        The interpreter. It needs numpy and the peer.
    maker : str
        The name of a function of this module.
    bars : dict of (n,) float64
    """

    def __init__(self, python: str, maker: str, bars: Bars):
        places = (str(Path(python).parent), os.environ.get("PATH", ""))
        with tempfile.TemporaryDirectory() as folder:
            given = Path(folder) / "bars.npz"
            np.savez(given, **bars)
            self._process = subprocess.Popen(
                [python, __file__, maker, str(given)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, "PATH": os.pathsep.join(places)},
            )
            self.version: str | None = self._answer()

    def __call__(self) -> dict[str, float]:
        """Make the call; return what it cost there, of all threads, as `measuring.metered` does."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: dict[str, float] = self._answer()
        return found

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args} ended with {self._process.wait()}")
        return json.loads(line)


def serve(maker: str, given: str) -> None:
    """Make a call for each line that comes; answer in lines of JSON."""
    # what a compiler says must not stand between the answers
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with np.load(given) as bars:
        work = globals()[maker](dict(bars))
    print(json.dumps(version(PACKAGES[maker]) if work else None), file=answers, flush=True)
    for _ in sys.stdin:
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        work()
        seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
        user, system = after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime
        found = {"seconds": seconds, "user": user, "system": system, "processor": user + system}
        print(json.dumps(found), file=answers, flush=True)


PACKAGES = {"kunquant": "KunQuant", "polars": "polars"}
"""The distributions that makers need."""


def polars(bars: Bars) -> Work | None:
    """Alpha158 as expressions, without the 15 columns of places, for which it has none."""
    try:
        import polars as pl
    except ImportError:
        return None
    frame = pl.DataFrame(bars)
    o, h, l, c, v = (pl.col(name) for name in ("open", "high", "low", "close", "volume"))
    eps = 1e-12
    span, top, foot = h - l + eps, h - pl.max_horizontal(o, c), pl.min_horizontal(o, c) - l
    made = [
        (c - o) / o, (h - l) / o, (c - o) / span, top / o, top / span, foot / o, foot / span,
        (2 * c - h - l) / o, (2 * c - h - l) / span, o / c, h / c, l / c,
    ]  # fmt: skip
    rise, v_rise, ratio = c - c.shift(1), v - v.shift(1), c / c.shift(1)
    moved, logs = (ratio - 1).abs() * v, (v + 1).log()
    grown = (v / v.shift(1) + 1).log()
    numbers = pl.int_range(pl.len()).cast(pl.Float64)
    for d in WINDOWS:
        mean, spread = c.rolling_mean(d), c.rolling_std(d)
        low, high = l.rolling_min(d), h.rolling_max(d)
        line = pl.rolling_corr(c, numbers, window_size=d)
        slope = line * spread / np.arange(d).std(ddof=1)
        made += [
            c.shift(d) / c, mean / c, spread / c, slope / c, line**2,
            (c - mean - slope * (d - 1) / 2) / c, high / c, low / c,
            c.rolling_quantile(0.8, "linear", window_size=d) / c,
            c.rolling_quantile(0.2, "linear", window_size=d) / c,
            c.rolling_rank(d) / d, (c - low) / (high - low + eps),
            pl.rolling_corr(c, logs, window_size=d), pl.rolling_corr(ratio, grown, window_size=d),
        ]  # fmt: skip
        up, down = ((x.cast(pl.Float64)).rolling_mean(d) for x in (rise > 0, rise < 0))
        made += [up, down, up - down]
        for x in (rise, v_rise):
            gain, loss = (side.clip(0).rolling_sum(d) for side in (x, -x))
            made += [y / (gain + loss + eps) for y in (gain, loss, gain - loss)]
        made += [v.rolling_mean(d) / (v + eps), v.rolling_std(d) / (v + eps)]
        made.append(moved.rolling_std(d) / (moved.rolling_mean(d) + eps))
    named = [each.cast(pl.Float32).alias(f"x{k}") for k, each in enumerate(made)]
    return lambda: frame.select(named)


def indicators(bars: Bars) -> dict[str, tuple[Work, Work | None, Work]]:
    """A few indicators as (ours, TA-Lib's, pandas') calls, by name; TA-Lib's None without it."""
    import pandas as pd

    from grandbatch import windows as w

    try:
        import talib
    except ImportError:
        talib = None
    x, v = bars["close"], bars["volume"]
    series, volumes = pd.Series(x), pd.Series(v)
    ticks = np.round(x, 2)

    def of_talib(name: str, *arguments: float, second: Any = None) -> Work | None:
        read = (x,) if second is None else (x, second)
        return None if talib is None else lambda: getattr(talib, name)(*read, *arguments)

    return {
        "mean 20": (lambda: w.mean(x, 20), of_talib("SMA", 20),
                    lambda: series.rolling(20).mean()),
        "mean 200": (lambda: w.mean(x, 200), of_talib("SMA", 200),
                     lambda: series.rolling(200).mean()),
        "ema 12": (lambda: w.ema(x, 12), of_talib("EMA", 12),
                   lambda: series.ewm(span=12, adjust=False).mean()),
        "ema 26": (lambda: w.ema(x, 26), of_talib("EMA", 26),
                   lambda: series.ewm(span=26, adjust=False).mean()),
        "std 20": (lambda: w.std(x, 20, 0), of_talib("STDDEV", 20),
                   lambda: series.rolling(20).std()),
        "max 20": (lambda: w.highest(x, 20), of_talib("MAX", 20),
                   lambda: series.rolling(20).max()),
        "slope 14": (lambda: w.slope(x, 14), of_talib("LINEARREG_SLOPE", 14),
                     lambda: series.rolling(14).cov(pd.Series(np.arange(len(x))))),
        **{f"correlation {n}": (lambda n=n: w.correlation(x, v, n), of_talib("CORREL", n, second=v),
                                lambda n=n: series.rolling(n).corr(volumes))
           for n in (14, 20, 60, 200)},
        **{f"rank {n}": (lambda n=n: w.rank(x, n), None,
                         lambda n=n: series.rolling(n).rank(pct=True)) for n in (20, 60, 200)},
        **{f"rank {n}, ticks": (lambda n=n: w.rank(ticks, n), None,
                                lambda n=n: pd.Series(ticks).rolling(n).rank(pct=True))
           for n in (60, 200)},
        **{f"quantile {n}": (lambda n=n: w.quantile(x, n, 0.8), None,
                             lambda n=n: series.rolling(n).quantile(0.8)) for n in (20, 60, 200)},
    }  # fmt: skip


if __name__ == "__main__":
    serve(*sys.argv[1:])
