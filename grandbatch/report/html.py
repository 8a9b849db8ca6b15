"""The words and tables of the page, and how it writes numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from grandbatch.report.svg import clean


def section(name: str, title: str, *parts: str) -> str:
    """Join the parts of a section under its title."""
    return f'<section id="{name}"><h2>{clean(title)}</h2>{"".join(parts)}</section>'


def words(content: str, kind: str = "") -> str:
    """Write a paragraph."""
    return f"<p{_class(kind)}>{clean(content)}</p>"


def table(head: Sequence[str], rows: Iterable[Sequence[object]], style: str = "") -> str:
    """Write a table; numbers stand to the right."""
    rows = list(rows)
    kinds = [_kind(value) for value in rows[0]] if rows else [""] * len(head)
    titles = "".join(
        f"<th{_class(kind)}>{clean(title)}</th>" for title, kind in zip(head, kinds, strict=True)
    )
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    return (
        f'<div class="wide"><table{_class(style)}><thead><tr>{titles}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def facts(values: Mapping[str, object]) -> str:
    """Write names and values."""
    rows = "".join(
        f"<div><dt>{clean(name)}</dt><dd>{clean(_plain(value))}</dd></div>"
        for name, value in values.items()
    )
    return f"<dl>{rows}</dl>"


def tiles(values: Mapping[str, str]) -> str:
    """Write the few figures that matter most, large."""
    items = "".join(
        f"<div><b>{clean(value)}</b><span>{clean(name)}</span></div>"
        for name, value in values.items()
    )
    return f'<div class="tiles">{items}</div>'


def folded(title: str, content: str, *, is_open: bool) -> str:
    """Put what few want to read behind its title."""
    state = ' open="open"' if is_open else ""
    return f"<details{state}><summary>{clean(title)}</summary>{content}</details>"


def pair(first: str, second: str) -> str:
    """Put two things side by side where there is room."""
    return f'<div class="pair"><div>{first}</div><div>{second}</div></div>'


def figures(items: Iterable[tuple[str, str, str]], kind: str = "charts") -> str:
    """Lay out charts: (title, drawing, what it says in words)."""
    shown = "".join(
        f"<figure><h3>{clean(title)}</h3>{drawing}"
        + (f"<figcaption>{clean(caption)}</figcaption>" if caption else "")
        + "</figure>"
        for title, drawing, caption in items
    )
    return f'<div class="{kind}">{shown}</div>'


def number(value: float) -> str:
    """Write a number with four digits that count; large ones whole."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def _cell(value: object) -> str:
    return f"<td{_class(_kind(value))}>{clean(_plain(value))}</td>"


def _kind(value: object) -> str:
    return "num" if isinstance(value, int | float) else ""


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    return "unknown" if value is None else str(value)


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""
