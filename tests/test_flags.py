"""flags: what a stage says of its own files and of strangers' ends in one readable sentence."""

import pytest

from vikdf import flags


def stage(*, word: str) -> None:
    """Refuses a word.

    word: any
    """
    raise ValueError(f"the column is called {word}")


def test_a_stranger_s_words_in_an_error_cannot_steer_the_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["stage", "--word", "\x1b[2Jred\r\u202e\x9b\x07"])
    with pytest.raises(SystemExit):
        flags.main(stage)
    assert r"the column is called \x1b[2Jred\r\u202e\x9b\x07" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["ein Hündchen\n\tund 猫", "", "a\\b"])
def test_a_sentence_of_any_language_stays_as_it_is(text):
    assert flags.printable(text) == text


def test_where_one_line_is_meant_a_line_end_is_its_code():
    assert flags.printable("a\nb\ud800", keep="") == r"a\nb\ud800"
