"""Folders that are columns: ``symbol=NQ/part-0.parquet``."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote


def is_hive_folder(name: str) -> bool:
    """Whether a folder's name is of the form ``column=value``."""
    column, equals, value = name.partition("=")
    return bool(column and equals and value) and not name.startswith((".", "_"))


@lru_cache(maxsize=16_384)
def hive_folders(location: str) -> tuple[str, ...]:
    """Names of the folders of that form right above a file, the outermost first."""
    folders: list[str] = []
    for name in reversed(Path(location).parts[:-1]):
        if not is_hive_folder(name):
            break
        folders.insert(0, name)
    return tuple(folders)


def hive_columns(location: str) -> dict[str, str]:
    """Columns that the folders above a file stand for, each with the value of all its rows."""
    parts = (name.partition("=") for name in hive_folders(location))
    return {unquote(column): unquote(value) for column, _, value in parts}
