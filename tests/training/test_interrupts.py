"""Ctrl-C and SIGTERM, held back until they can be answered."""

from __future__ import annotations

import signal

import pytest

from grandbatch.training.interrupts import Ending, HeldInterrupts


@pytest.fixture(params=[False, True], ids=["heard", "ignored"])
def ignored(request):
    """Whether the process was started with Ctrl-C ignored."""
    before = signal.getsignal(signal.SIGINT)
    if request.param:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield request.param
    signal.signal(signal.SIGINT, before)


def test_sigterm_ends_as_ctrl_c_does_also_where_that_is_ignored(ignored):
    before = signal.getsignal(signal.SIGINT)
    with Ending():
        if ignored:
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_is_held_back_but_where_it_is_ignored(ignored):
    with HeldInterrupts() as held:
        signal.raise_signal(signal.SIGINT)
    assert held.pending is not ignored


@pytest.mark.parametrize("times", [1, 2])
def test_an_ending_hears_only_sigterm_where_ctrl_c_is_ignored(ignored, times):
    with Ending(), Ending() if times == 2 else HeldInterrupts():
        with HeldInterrupts() as held:
            signal.raise_signal(signal.SIGINT)
            assert held.pending is not ignored
            signal.raise_signal(signal.SIGTERM)
            assert held.pending
        if times == 2:
            with pytest.raises(KeyboardInterrupt):
                held.release()
