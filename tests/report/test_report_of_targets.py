"""The report's section on targets: shares, figures and correlations are those of the store."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

import grandbatch as gb
from grandbatch.report import write_report
from grandbatch.report.targets import correlations_with

TARGETS = "forward_return:5,triple_barrier:0.01:0.01:40"


@pytest.fixture
def report(make_store, tmp_path):
    store = make_store(400, overlap=40, chunk_windows=4, targets=TARGETS)
    path = tmp_path / "report.html"
    write_report(store, path)
    page = path.read_text()
    ET.fromstring(page.partition("\n")[2])
    return store, page.partition('<section id="targets">')[2].partition("</section>")[0]


def cells(section, name):
    """The cells of the row of a table that begins with a name."""
    (row,) = re.findall(rf"<tr><td>{re.escape(name)}</td>(.*?)</tr>", section)
    return re.findall(r"<td[^>]*>(.*?)</td>", row)


def test_the_share_of_nan_and_the_shares_of_classes_are_the_stores(report):
    store, section = report
    values = store.targets[:]
    for number, name in enumerate(store.target_names):
        horizon, unknown = cells(section, name)[:2]
        assert horizon == str(store.attrs["target_horizons"][number])
        assert unknown == f"{100 * np.isnan(values[:, number]).mean():.2f} %"
    barrier = values[np.isfinite(values[:, 1]), 1]
    for value, share in zip(*np.unique(barrier, return_counts=True), strict=True):
        assert f"{value:g}: {100 * share / len(barrier):.1f} %" in section


def test_each_feature_stands_with_its_correlations(report):
    store, section = report
    rows = pd.DataFrame(store.matrices[:][:, -1].astype(float), columns=store.feature_names)
    table = section.partition("Correlation with each feature")[2]
    for name in store.feature_names:
        wanted = [rows[name].corr(pd.Series(store.targets[:][:, k].astype(float))) for k in (0, 1)]
        shown = cells(table, name)
        for text, value in zip(shown, wanted, strict=True):
            assert text == "never changes" or abs(float(text) - value) < 6e-4


def test_a_store_without_targets_has_no_such_section(make_store, tmp_path):
    path = tmp_path / "report.html"
    write_report(make_store(200), path)
    assert "targets" not in path.read_text()


def test_targets_that_are_nowhere_known_are_shown_as_such(make_store, tmp_path):
    store = make_store(200, targets=gb.forward_return(500))
    path = tmp_path / "report.html"
    write_report(store, path)
    assert cells(path.read_text(), "forward_return_500") == ["500", "100.00 %", *["unknown"] * 5]


def test_what_never_changes_has_no_correlation():
    features = np.float32([[1, 5], [2, 5], [3, 5], [4, 6]])
    values = np.float32([[2, 1], [4, 1], [6, 1], [np.nan, 1]])
    np.testing.assert_allclose(correlations_with(features, values), [[1, np.nan], [np.nan, np.nan]])
