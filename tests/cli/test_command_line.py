"""Frequent mistakes on a command line: flags with a value, and whole numbers written as floats."""

from dataclasses import dataclass, field

import pytest
import tyro
from refusals import refused

from vdvae_lr.cli.shared.command_line import parse_settings


@dataclass(frozen=True)
class Inner:
    """Settings inside others."""

    deep_flag: bool = True
    """A flag."""


@dataclass(frozen=True)
class Example:
    """One setting of each kind."""

    word: tyro.conf.Positional[str] = "none"
    """A word."""
    first_flag: bool = False
    """A flag."""
    number: int = 0
    """A number."""
    text: str = ""
    """Text."""
    inner: tyro.conf.OmitArgPrefixes[Inner] = field(default_factory=Inner)


def parsed(line: str) -> Example:
    return parse_settings(Example, line.split(), "example")


@pytest.mark.parametrize("joint", [" ", "="])
@pytest.mark.parametrize(("word", "value"), [("True", True), ("TRUE", True), ("False", False), ("false", False)])
@pytest.mark.parametrize("spelling", ["{}_flag", "{}-flag"])
def test_a_flag_may_be_told_true_or_false(spelling: str, joint: str, word: str, value: bool) -> None:
    first, deep = spelling.format("first"), spelling.format("deep")
    assert parsed(f"--{first}{joint}{word} positional") == Example("positional", first_flag=value)
    assert parsed(f"positional --{deep}{joint}{word}") == Example("positional", inner=Inner(value))


def test_a_flag_alone_takes_no_word_after_it() -> None:
    assert parsed("--first_flag positional") == Example("positional", first_flag=True)
    assert parsed("--no_deep_flag truth") == Example("truth", inner=Inner(False))
    assert parsed("--text true --number=3") == Example(text="true", number=3)
    assert parsed("--first_flag True --first_flag False").first_flag is False  # the last one counts


@pytest.mark.parametrize(
    "word", ["--first_flag=maybe", "--first_flag=", "--no_first_flag=true", "--no-first-flag False"]
)
def test_a_flag_that_is_neither_is_one_sentence(word: str) -> None:
    with refused("", "neither yes nor no", "write --first_flag or --no_first_flag"):
        parsed(word)


@pytest.mark.parametrize(("word", "number"), [("7", 7), ("-7", -7), ("+7", 7), ("1_000", 1000), ("007", 7)])
def test_whole_numbers(word: str, number: int) -> None:
    assert parsed(f"--number {word}").number == parsed(f"--number={word}").number == number


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        *(("1e5", "write 100000"), ("3.0", "write 3")),
        *((word, "") for word in ("3.5", "many", "inf", "nan", "0x10", "", "9" * 5000)),
    ],
)
def test_what_is_no_whole_number_says_how_it_is_written(
    word: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_settings(Example, [f"--number={word}"], "example")
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert ended.value.code == 2 and "--number" in said
    assert "is no whole number" in said and hint in said and ("write" in said) is bool(hint)
