"""The picture of the README: later epochs of each loader as bars, light and dark.

It is drawn from the table on the page on performance, so that both say the same; `compare.py`
prints that table.

    python benchmarks/peers/picture.py
"""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"
WIDTH, NAMES, BAR, GAP = 740, 316, 18, 8
LOOKS = {
    "light": {"text": "#1f2328", "faint": "#59636e", "ours": "#0969da", "peer": "#afb8c1"},
    "dark": {"text": "#f0f6fc", "faint": "#9198a1", "ours": "#4493f8", "peer": "#3d444d"},
}
TITLE = "M windows/s, later epochs; in brackets the peak memory"


def bars_of(page: str) -> list[tuple[str, float, str]]:
    """Name, millions of windows a second, and peak MB of each row of the page's table."""
    line = re.compile(r"^\| ([^|]+) \| [\d.]+\*?, ([\d.]+)\*? \| [^|]+ \| ([\d,]+)\*? \|", re.M)
    return [(name, float(rate), peak) for name, rate, peak in line.findall(page)]


def alternative(bars: list[tuple[str, float, str]]) -> str:
    """The same in words, for who can't see it."""
    told = "; ".join(f"{name} {rate:.2f} ({peak} MB)" for name, rate, peak in bars)
    return f"Bars: {TITLE}. {told}."


def draw(bars: list[tuple[str, float, str]], look: str) -> str:
    """One SVG of its own, readable without a style sheet."""
    colours = LOOKS[look]
    height = 30 + len(bars) * (BAR + GAP)
    longest = max(rate for _, rate, _ in bars)
    shapes = [f'<text x="0" y="14" fill="{colours["faint"]}">{escape(TITLE)}</text>']
    for number, (name, rate, peak) in enumerate(bars):
        top = 28 + number * (BAR + GAP)
        wide = max(2.0, (WIDTH - NAMES - 110) * rate / longest)
        kind = "ours" if name.startswith("grandbatch") else "peer"
        shapes += [
            f'<text x="{NAMES - 8}" y="{top + 14}" fill="{colours["text"]}" text-anchor="end">'
            f"{escape(name)}</text>",
            f'<rect x="{NAMES}" y="{top}" width="{wide:.1f}" height="{BAR}" rx="2" '
            f'fill="{colours[kind]}"/>',
            f'<text x="{NAMES + wide + 6:.1f}" y="{top + 14}" fill="{colours["text"]}">'
            f'{rate:.2f} <tspan fill="{colours["faint"]}">({peak} MB)</tspan></text>',
        ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" font-size="13" '
        'font-family="system-ui, sans-serif">\n'
        f"<title>{escape(alternative(bars))}</title>\n" + "\n".join(shapes) + "\n</svg>\n"
    )


def main() -> None:
    bars = bars_of(PAGE.read_text())
    for look in LOOKS:
        path = IMAGES / f"peers-{look}.svg"
        path.write_text(draw(bars, look))
        print(path.relative_to(ROOT))
    print(alternative(bars))


if __name__ == "__main__":
    main()
