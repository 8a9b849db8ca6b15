"""Every public class shows in its docstring how it is used, and that is what happens."""

from __future__ import annotations

import doctest
import inspect

import pytest

import grandbatch as gb

CLASSES = sorted(name for name in gb.__all__ if inspect.isclass(getattr(gb, name)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where examples run one after the other: the store that several build is built once."""
    return tmp_path_factory.mktemp("examples")


@pytest.mark.parametrize("name", CLASSES)
def test_the_example_of_a_public_class_runs_as_written(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    public = getattr(gb, name)
    found = doctest.DocTestFinder(recurse=False).find(public, name, globs={})
    assert [len(test.examples) > 0 for test in found] == [True], name
    told = []
    failed, _ = doctest.DocTestRunner().run(found[0], out=told.append)
    assert not failed, "".join(told)
