"""Bars: on a terminal after five seconds, one at a time, on standard error alone, and nowhere else."""

import io
from types import SimpleNamespace

import pytest

from rlphf import progress
from rlphf.progress import bar, silent


class Terminal(io.StringIO):
    """A standard error that calls itself a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal on which bars appear at once."""
    stream = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    monkeypatch.setattr(progress, "DELAY", 0.0)
    return stream


def work(name: str = "responses") -> None:
    with bar(4, name) as done:
        done(3)
        done(1)


def test_a_terminal_sees_how_much_is_done(shown, capsys):
    work()
    assert "responses" in shown.getvalue() and "/4" in shown.getvalue()
    assert capsys.readouterr().out == ""


def test_a_file_sees_nothing(monkeypatch, capsys):
    monkeypatch.setattr(progress, "DELAY", 0.0)
    work()
    assert capsys.readouterr() == ("", "")


def test_short_work_gets_no_bar(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    work()
    assert "responses" not in stream.getvalue()


def test_work_inside_work_has_no_bar_of_its_own(shown):
    with bar(2, "updates") as done:
        work()
        done(2)
    assert "updates" in shown.getvalue() and "responses" not in shown.getvalue()
    work()
    assert "responses" in shown.getvalue()


def test_an_error_leaves_the_next_bar_alone(shown):
    with pytest.raises(ValueError), bar(2, "updates"):
        raise ValueError
    work()
    assert "responses" in shown.getvalue()


def test_no_bar_where_something_else_is_written(shown):
    with silent():
        work()
    assert shown.getvalue() == ""
