"""Progress: what was done before does not count as speed, and it says what is being done."""

import io

import pytest

from mrviz._progress import Progress


def test_the_text_bar_starts_at_what_was_done_and_says_what_goes_on(monkeypatch):
    tqdm = pytest.importorskip("tqdm")
    shown, bars = io.StringIO(), []

    def keep(**options):
        bars.append(tqdm.tqdm(**{**options, "file": shown, "delay": 0, "mininterval": 0}))
        return bars[-1]

    monkeypatch.setattr("tqdm.auto.tqdm", keep)
    with Progress(5, "counting", None, None, 3) as bar:
        bar.describe("counting on")
        bar.advance()
    assert (bar.done, bar.label) == (4, "counting on")
    assert bars[0].initial == 3 and "counting on:  80%" in shown.getvalue()


def test_a_callback_sees_the_steps_done_before_and_the_new_label():
    calls = []
    with Progress(5, "counting", lambda *call: calls.append(call), None, 3) as bar:
        bar.describe("counting on")
        bar.advance()
    assert calls == [(3, 5, "counting"), (4, 5, "counting on")]
