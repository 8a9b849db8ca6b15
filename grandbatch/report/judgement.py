"""A page about an evaluation: the verdict, what a capital becomes, and the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from grandbatch.evaluation import Evaluation, SymbolResult
from grandbatch.evaluation.performance import written
from grandbatch.evaluation.results import BUY_AND_HOLD
from grandbatch.files.whole import write_whole
from grandbatch.report import charts, html
from grandbatch.report.page import document, publish, refuse_folder
from grandbatch.values.texts import strict_json

_MOST_CURVES = 3
_CONTENTS = {
    "verdict": "Verdict",
    "equity": "Equity",
    "figures": "Figures",
    "symbols": "Symbols",
    "made-of": "Made of",
}


def write_judgement(
    result: Evaluation, path: Path, name: str, facts: Mapping[str, object], warnings: Sequence[str]
) -> None:
    """Write a page about an evaluation: one HTML file that needs nothing else.

    Parameters
    ----------
    result : Evaluation
    path : Path
        It appears whole, or not at all.
    name : str
        What was evaluated.
    facts : mapping of str to object
        Where it comes from.
    warnings : sequence of str
        What stands before all else.

    Raises
    ------
    UsageError
        If `path` is a folder.
    """
    refuse_folder(path)
    body = "".join(
        (_verdict(result, warnings), _equity(result), _figures(result), _symbols(result.symbols,
         result), html.section("made-of", "What it is made of", html.facts(facts)))
    )  # fmt: skip
    publish(path, document(name, body, _CONTENTS))


def keep_walk_forward(
    result: Evaluation, out: Path, name: str, facts: Mapping[str, object]
) -> Path:
    """Write a walk-forward's figures and page, `evaluation.json` and `.html`, into its folder.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    UsageError
        If the page's place is taken by a folder.
    """
    write_whole(out / "evaluation.json", strict_json(result.to_json()).encode())
    page = out / "evaluation.html"
    write_judgement(result, page, f"walk-forward on {name}", facts, ())
    return page


def _verdict(result: Evaluation, warnings: Sequence[str]) -> str:
    found = result.performance
    said = (*warnings, str(result.verdict))
    return html.section(
        "verdict",
        "Verdict",
        *(html.words(f"{text[0].upper()}{text[1:]}.", "verdict") for text in said),
        html.tiles(
            {
                "return after costs": written("total_return", found.total_return),
                "of buying and holding": written(
                    "total_return", result.buy_and_hold.performance.total_return
                ),
                "Sharpe ratio, a year's": written("sharpe", found.sharpe),
                "largest fall from a peak": written("max_drawdown", found.max_drawdown),
                "bars traded": f"{len(result.times):,}",
            }
        ),
    )


def _equity(result: Evaluation) -> str:
    curves = dict(result.curves)
    held = {BUY_AND_HOLD: curves.pop(BUY_AND_HOLD)}
    team, *others = curves.items()
    # whatever else is shown, the team and holding keep their colours
    shown = {**dict([team]), **held, **dict(others[: _MOST_CURVES - 2])}
    drawing = charts.equity(
        "what a capital of 1 becomes, beside buying and holding and chance",
        result.times[result.curve_bars],
        shown,
        result.chance,
        "the same at random times: middle, 5 to 95 %",
    )
    seeds = "" if len(result.seeds) == 1 else f", the mean of {len(result.seeds)} seeds"
    caption = f"After costs{seeds}. {result.context()}."
    return html.section(
        "equity", "Equity", html.figures([("What a capital of 1 becomes", drawing, caption)], "one")
    )


def _figures(result: Evaluation) -> str:
    head, *rows = result.figures()
    parts = [html.table(head, rows, "figures")]
    if len(result.seeds) > 1:
        names = ("total_return", "sharpe", "max_drawdown", "hit_rate")
        seeds = [
            (f"seed {n}", *(written(name, getattr(track.performance, name)) for name in names))
            for n, track in enumerate(result.seeds)
        ]
        titles = ("", "return", "Sharpe ratio", "largest fall", "right about the side")
        parts += ["<h3>Seeds</h3>", html.table(titles, seeds, "figures")]
    parts.append(
        html.words(
            "Random are the team's own exposures at other times. The Sharpe "
            "ratio is scaled to a year of as many bars as there were."
        )
    )
    return html.section("figures", "Figures", *parts)


def _symbols(symbols: Sequence[SymbolResult], result: Evaluation) -> str:
    if len(symbols) == 1:
        return ""
    best, worst = result.best_and_worst
    title = f"The best {len(best)}" if worst else "All symbols"
    parts = [
        html.words("Each as if all capital were its own, mean over the seeds."),
        f"<h3>{title}</h3>",
        _symbol_table(best),
    ]
    if worst:
        parts += [f"<h3>The worst {len(worst)} of {len(symbols):,}</h3>", _symbol_table(worst)]
    return html.section("symbols", "Symbols", *parts)


def _symbol_table(symbols: Sequence[SymbolResult]) -> str:
    rows = [
        (
            one.symbol,
            written("total_return", one.total_return),
            written("total_return", one.buy_and_hold),
            written("mean_return", one.mean_return),
            f"{one.n_windows:,}",
        )
        for one in symbols
    ]
    head = ("symbol", "return", "of holding it", "return per bar", "bars")
    return html.table(head, rows, "figures")
