"""A set's name means a built-in one, or what stands in a module of the user's own."""

import pickle
import sys
import textwrap
from pathlib import Path

import pytest

import grandbatch as gb
from grandbatch.builder.workers import lacking
from grandbatch.errors import UsageError
from grandbatch.features import resolve_feature_set
from grandbatch.features.named import resolve_features

MODULE = """
    import grandbatch as gb
    from own_helpers import change

    MINE = gb.FeatureSet("mine", [gb.Feature("change", 1, change), gb.ema(3)], 4)
    OTHER = MINE.with_window(8)
    CHANGE = MINE.features[0]
    NUMBER = 3
"""
HELPERS = """
    def change(close, first, out):
        out[:] = close[first:] - close[first - 1 : -1]
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder with modules in it."""
    monkeypatch.chdir(tmp_path)
    write("own_helpers.py", HELPERS)
    write("own_features.py", MODULE)
    return tmp_path


def write(path, text):
    Path(path).write_text(textwrap.dedent(text))


def test_a_file_and_a_module_name_the_same_set():
    found = resolve_feature_set("own_features.py:MINE")
    assert found.feature_names == ("change", "ema_3")
    assert resolve_feature_set("own_features:MINE") is found
    assert gb.LiveFeatures("own_features:OTHER").feature_set.sequence_length == 8


def test_modules_in_packages_and_files_in_folders_are_found(folder):
    (folder / "pack").mkdir()
    write("pack/__init__.py", "")
    write("pack/inner.py", MODULE)
    assert resolve_feature_set("pack.inner:MINE").name == "mine"
    (folder / "deep").mkdir()
    write("deep/own_deep.py", MODULE.replace("own_helpers", "own_deep_helpers"))
    write("deep/own_deep_helpers.py", HELPERS)
    assert resolve_feature_set("deep/own_deep.py:MINE").name == "mine"
    assert resolve_feature_set(f"{folder}/deep/own_deep.py:MINE").name == "mine"


def test_a_feature_can_be_named_where_one_is_wanted():
    assert resolve_features("own_features.py:CHANGE").name == "change"
    assert resolve_features("strategic") is gb.STRATEGIC
    assert resolve_features(gb.ema(3)) == gb.ema(3)


def test_only_what_is_named_is_imported():
    write("zarr.py", "raise SystemExit('imported')")
    write("own_other.py", "raise SystemExit('imported')")
    resolve_feature_set("own_features.py:MINE")
    import zarr

    assert "site-packages" in zarr.__file__
    assert "own_other" not in sys.modules


def test_kernels_of_a_named_module_go_through_pickle_as_long_as_it_can_be_imported(folder):
    found = resolve_feature_set("own_features.py:MINE")
    pickled = pickle.dumps(found)
    assert pickle.loads(pickled) == found
    assert lacking(pickled) == ""
    del sys.modules["own_helpers"]
    (folder / "own_helpers.py").unlink()
    sys.path_importer_cache.pop(str(folder), None)
    assert "own_helpers" in lacking(pickled)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stategic", r"unknown feature set 'stategic' \(did you mean strategic\?\); choose strate"),
        ("features", "module:NAME or path.py:NAME"),
        (3, "unknown feature set 3"),
        (None, "unknown feature set None"),
        ("own_features:", "got 'own_features:'"),
        (":MINE", "got ':MINE'"),
        ("own features:MINE", "is no module"),
        ("own_features.py:YOURS", "own_features.py has no YOURS; its feature sets are MINE, OTHER"),
        ("own_features:NUMBER", "must be a FeatureSet, got int; its feature sets are MINE, OTHER"),
        ("own_features:CHANGE", "must be a FeatureSet, got Feature"),
        ("own_helpers:change", "got function; it has no feature set"),
        ("nowhere.py:MINE", r"nowhere\.py: there is no such file in /"),
        ("nowhere:MINE", "nowhere can't be imported: ModuleNotFoundError"),
        ("own.v2.py:MINE", "no dot in it; rename"),
        ("broken.py:MINE", r"can't be imported: NameError: .*wrong.* \(line 3 of broken.py\)"),
        ("torn.py:MINE", "can't be imported: SyntaxError"),
        ("random.py:MINE", r"/random\.py has the name of another module, .*random\.py; rename it"),
        ("wave.py:MINE", "another module, of the standard library; rename it"),
    ],
)
def test_a_name_that_means_no_set_is_refused_with_what_to_do(name, words):
    for file in ("own.v2.py", "random.py", "wave.py"):
        write(file, MODULE)
    write("broken.py", "import grandbatch\n\nMINE = wrong\n")
    write("torn.py", "MINE = (\n")
    with pytest.raises(UsageError, match=words):
        resolve_feature_set(name)


def test_a_module_that_failed_can_be_mended_and_named_again():
    write("own_late.py", "MINE = wrong\n")
    with pytest.raises(UsageError, match="NameError"):
        resolve_feature_set("own_late.py:MINE")
    write("own_late.py", MODULE + "\n    # mended\n")
    assert resolve_feature_set("own_late.py:MINE").name == "mine"
