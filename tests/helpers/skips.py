"""Under --no-unlisted-skips, as in CI, a test that skips fails, but for the reasons listed here."""

from __future__ import annotations

import pytest

# what a test gives as its reason: why no CI has what it wants
LISTED = {
    "no GPU here": "CI runs on machines without one",
    "no hosts of their own without root": "network namespaces take it, and where it is none skips",
}
FLAG = "--no-unlisted-skips"


def pytest_addoption(parser):
    reasons = ", ".join(LISTED)
    parser.addoption(FLAG, action="store_true", help=f"a skip for other reasons fails: {reasons}")


def pytest_configure(config):
    if config.getoption(FLAG):
        config.pluginmanager.register(NoUnlistedSkips())


class NoUnlistedSkips:
    """Makes failures of the skips of tests and of whole files."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(self):
        return checked((yield))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(self):
        return checked((yield))


def checked(report):
    if report.skipped and not hasattr(report, "wasxfail"):
        _, _, words = report.longrepr
        reason = words.removeprefix("Skipped: ")
        if reason not in LISTED:
            report.outcome = "failed"
            report.longrepr = (
                f"skipped: {reason} (tests/helpers/skips.py lists the reasons that may be)"
            )
    return report
