"""The page as a whole: one file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from grandbatch.errors import UsageError
from grandbatch.files.locations import as_location, is_remote
from grandbatch.files.refusals import refuse_url
from grandbatch.files.verbs import is_in_objects, make_folder
from grandbatch.files.whole import write_whole
from grandbatch.report import sections
from grandbatch.report.sampling import sample_rows
from grandbatch.report.svg import clean
from grandbatch.report.targets import targets
from grandbatch.report.training import training
from grandbatch.store import MatrixStore
from grandbatch.store.publish import beside
from grandbatch.version import __version__

_CONTENTS = {
    "worth-a-look": "Worth a look",
    "made-of": "Made of",
    "coverage": "Coverage",
    "quarantine": "Quarantine",
    "features": "Features",
    "correlations": "Correlations",
    "targets": "Targets",
    "samples": "Samples",
    "build": "Build",
    "training": "Training",
}


def write_report(
    store: MatrixStore,
    path: Path,
    *,
    cache_dir: Path | None = None,
    checkpoint_dir: Path | None = None,
) -> None:
    """Write a page about a store, and about a training on it.

    Reads a sample of the matrices and the time of every window; memory stays below a few chunks
    and some 100 MB however large the store is.

    Parameters
    ----------
    store : MatrixStore
    path : Path
        The HTML file, or a URL of it; it appears whole, or not at all.
    cache_dir : Path, optional
        Folder of the bars cache; by default the one beside the store.
    checkpoint_dir : Path, optional
        Checkpoints of a training on the store.

    Raises
    ------
    DamagedStoreError, StoreChangedError
        If a chunk of the sample is not what was written.
    UsageError, CheckpointError
        If the folder of checkpoints holds no training on this store, or `path` is a folder.
    """
    refuse_folder(path)
    caches = as_location(cache_dir or beside(store.path) / "bars")
    publish(path, render(store, caches, checkpoint_dir))


def refuse_folder(path: Path) -> None:
    """Refuse a path where no page can be written, before it is made."""
    refuse_url(path, "a page", but=is_in_objects)
    if not is_remote(path) and path.is_dir():
        raise UsageError(f"{path} is a folder; give the path of the page's file")


def publish(path: Path, page: str) -> None:
    """Write a page, whole or not at all."""
    place = as_location(path)
    make_folder(place.parent)
    write_whole(place, page.encode(), durable=False)


def render(store: MatrixStore, cache_dir: Path, checkpoint_dir: Path | None) -> str:
    """Return the page as HTML that is XML, too."""
    bars = sections.find_bars(store, cache_dir)
    rows = sample_rows(store)
    body = "".join(
        (
            sections.worth_a_look(store),
            sections.made_of(store),
            sections.coverage(store),
            sections.quarantine(store, bars),
            sections.features(store, rows),
            sections.correlation(store, rows),
            targets(store, rows),
            sections.samples(store, bars),
            sections.build(store),
            training(store, checkpoint_dir),
        )
    )
    return document(store.path.name, body, _CONTENTS)


def document(name: str, body: str, contents: Mapping[str, str]) -> str:
    """Put sections into a page that needs nothing else; `contents` are their ids and names."""
    title = clean(name)
    links = "".join(
        f'<a href="#{name}">{said}</a>'
        for name, said in contents.items()
        if f'<section id="{name}">' in body
    )
    style = files("grandbatch.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        '<meta name="color-scheme" content="light dark"/><link rel="icon" href="data:,"/>'
        f"<title>{title}</title><style>{style}</style></head>"
        f"<body><header><h1>{title}</h1><nav>{links}</nav></header><main>{body}"
        f"<footer>Written by grandbatch {__version__}; what it shows was checked as it was read."
        "</footer>"
        "</main></body></html>\n"
    )
