"""Every number of every command is one that means something, and every path is read in one way."""

import dataclasses
import math
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

from vdvae_lr.cli.main import COMMANDS
from vdvae_lr.cli.shared.command_line import parse_settings
from vdvae_lr.errors import InputError
from vdvae_lr.setting_checks import Between, Count, PathText, check_settings, checked_dataclass, type_words, value_fits
from vdvae_lr.training.settings import RunSettings, Settings

INFINITE = {"grad_clip", "skip_threshold", "stuck_after_s"}  # where infinity means something
ONE_WORD = ["model"]
TWO_WORDS = ["model", "other"]
POSITIONALS: dict[str, list[str]] = {"train": [], "sample": ONE_WORD, "evaluate": ONE_WORD, "verify": ONE_WORD}
POSITIONALS |= {"interpolate": ["model", "a.png", "b.png"], "traverse": ["model", "--group=1"]}


@dataclasses.dataclass(frozen=True)
class Example:
    """One field of each kind."""

    share: Annotated[float, Between(0, 1)] = 0.5
    decay: Annotated[float, Between(0, 1, below=True)] = 0.5
    scale: Annotated[float, Between(0, above=True, infinite=True)] = 1.0
    plain: float = 0.0
    many: tuple[float, ...] = (0.0,)
    number: int = 0
    count: Count = 1
    place: PathText = ""
    path: Path | None = None
    text: str = ""
    flag: bool = False

    def __post_init__(self) -> None:
        """As every dataclass of settings does."""
        check_settings(self)


@pytest.mark.parametrize(
    ("name", "value", "cause"),
    [
        ("share", -0.1, "0 or more"),
        ("share", 1.5, "at most 1"),
        ("decay", 1.0, "below 1"),
        ("scale", 0.0, "positive"),
        ("scale", -math.inf, "positive"),
        ("share", math.inf, "at most 1"),
        ("plain", math.inf, "finite"),
        ("plain", -math.inf, "finite"),
        pytest.param(
            "plain", 10**400, "at most", id="plain-400-digits"
        ),  # a whole number of JSON or TOML that no float can hold
        ("many", (0.0, math.inf), "finite"),
        ("number", 2**63, "at most"),
        ("number", -(2**63) - 1, "or more"),
        ("count", 0, "1 or more"),
        ("count", 2**31, "at most"),
        pytest.param("count", 10**400, "at most", id="count-400-digits"),
        *(("share", math.nan, "0 or more"), ("scale", math.nan, "positive"), ("plain", math.nan, "a number")),
    ],
)
def test_numbers_out_of_range_are_one_sentence(name: str, value: Any, cause: str) -> None:
    with refused(f"{name} is", cause, "it must be"):
        Example(**{name: value})


@pytest.mark.parametrize(
    "values",
    [
        *({"share": 0}, {"share": 1}, {"decay": 0.0}, {"scale": math.inf}, {"plain": -1e300}, {"plain": 3}),
        *({"number": -5}, {"number": 2**63 - 1}, {"count": 2**31 - 1}, {"many": ()}, {"text": "~/x"}, {"flag": True}),
    ],
)
def test_numbers_in_range_stay_as_they_are(values: dict[str, Any]) -> None:
    assert vars(Example(**values)) == vars(Example()) | values


def test_paths_are_read_in_one_way_whatever_their_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    example = Example(place="~/a", path=Path("~/d"), text="~/e")
    assert (example.place, example.path, example.text) == (f"{tmp_path}/a", tmp_path / "d", "~/e")
    assert dataclasses.replace(example) == example


def settings_kinds() -> Iterator[tuple[str, type[Any]]]:
    """Every command and the dataclass of its settings."""
    from importlib import import_module

    for name, command in COMMANDS.items():
        kind = command.settings
        yield name, getattr(import_module(f"vdvae_lr.cli.{command.module}"), kind) if kind else Settings


def given_settings(command: str, kind: type[Any]) -> Iterator[Any]:
    """The settings of a command line without options, and those inside them."""
    groups = [parse_settings(kind, POSITIONALS.get(command, TWO_WORDS), command)]
    while groups:
        yield (group := groups.pop())
        groups += [value for value in vars(group).values() if dataclasses.is_dataclass(value)]


def refuses(settings: Any, name: str, value: Any) -> bool:
    try:
        dataclasses.replace(settings, **{name: value})
    except InputError as error:
        assert str(error).startswith((f"{name} is", "a noise variance is")), error
        return True
    return False


@pytest.mark.parametrize(("command", "kind"), list(settings_kinds()))
def test_no_command_takes_a_number_that_means_nothing(command: str, kind: type[Any]) -> None:
    for settings in given_settings(command, kind):
        for name, hint in typing.get_type_hints(type(settings)).items():
            if hint in (float, tuple[float, ...]):
                nan, infinity = (value if hint is float else (value,) for value in (math.nan, math.inf))
                assert refuses(settings, name, nan), name
                assert refuses(settings, name, infinity) is (name not in INFINITE), name
            if hint is int:
                assert refuses(settings, name, 10**20) and refuses(settings, name, -(10**20)), name


@pytest.mark.parametrize(("command", "kind"), list(settings_kinds()))
def test_every_setting_that_names_a_place_takes_a_tilde(
    command: str, kind: type[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    places = {"out", "files", "data_root", "save_dir", "pretrained", "before", "weights_mirror", "image", "model"}
    places |= {"restore_path", "restore_ema_path", "restore_optimizer_path", "folder", "target", "source"}
    for settings in given_settings(command, kind):
        for field in dataclasses.fields(settings):
            hint = typing.get_type_hints(type(settings))[field.name]
            if field.name in places and hint in (str, Path, Path | None):
                value = "~/x.png" if hint is str else Path("~/x.png")
                changed = getattr(dataclasses.replace(settings, **{field.name: value}), field.name)
                assert str(changed) == f"{tmp_path}/x.png", field.name


def test_presets_that_are_files_take_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert RunSettings(hps="fashion,~/x.toml, ~/y.toml").hps == f"fashion,{tmp_path}/x.toml,{tmp_path}/y.toml"


@pytest.mark.parametrize("name", ["..", ".", "../x", "a/../b", "/abs", "~", "~/x", "/", "a/./b"])
def test_a_run_stays_inside_save_dir(name: str) -> None:
    with refused("the run's name", "no folder inside save_dir", "--desc"):
        RunSettings(desc=name)


@pytest.mark.parametrize("name", ["a\nb", "a\tb", "\x1b[31m", "x" * 251, "ü" * 126, "a/" + "x" * 300])
def test_names_that_no_folder_should_have(name: str) -> None:
    with refused("the run's name", "", "choose another --desc" if len(name) < 20 else "choose a shorter --desc"):
        RunSettings(desc=name)


@pytest.mark.parametrize("name", ["a/b", "x" * 250, "with space", "ünïcode", "...", "-x", "a=b", "\udcff"])
def test_names_that_a_run_may_have(name: str) -> None:
    assert RunSettings(desc=name).name == name


def test_long_names_of_presets_count_together() -> None:
    with refused("the run's name", "321 bytes", "choose a shorter --desc"):
        RunSettings(hps=",".join("x" * 159 + end + ".toml" for end in "ab"))


@dataclasses.dataclass(frozen=True)
class Choice:
    """A dataclass with a field of every kind."""

    count: int = 1
    share: float = 0.5
    name: str = ""
    kind: Literal["one", "two"] = "one"
    wanted: bool = False
    perhaps: int | None = None


@pytest.mark.parametrize(
    ("values", "cause"),
    [
        ({"cuont": 1}, "there is no setting 'cuont' (did you mean 'count'?)"),
        ({"count": 1.0}, "count is 1.0; it must be a whole number"),
        ({"count": True}, "count is True; it must be a whole number"),
        ({"count": None}, "count is None; it must be a whole number"),
        ({"share": "1"}, "share is '1'; it must be a number"),
        ({"share": False}, "share is False; it must be a number"),
        ({"name": 1}, "name is 1; it must be text"),
        ({"kind": "three"}, "kind is 'three'; it must be one of one, two"),
        ({"wanted": 1}, "wanted is 1; it must be true or false"),
        ({"perhaps": "1"}, "perhaps is '1'; it must be a whole number or empty"),
    ],
)
def test_values_of_another_kind_are_named(values: dict[str, Any], cause: str) -> None:
    with refused("some file", cause, ""):
        checked_dataclass(Choice, values, "some file")


@pytest.mark.parametrize(
    "values",
    [{}, {"share": 1}, {"perhaps": None}, {"perhaps": 3}, {"kind": "two", "wanted": True, "name": "x", "count": -1}],
)
def test_values_of_the_right_kind_are_taken(values: dict[str, Any]) -> None:
    assert checked_dataclass(Choice, values, "some file") == Choice(**values)


@given(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())))
def test_a_plain_value_is_of_exactly_its_own_kind(value: object) -> None:
    fitting = {hint for hint in (int, float, str, bool, type(None)) if value_fits(value, hint)}
    own = {type(value)} | ({float} if type(value) is int else set())
    assert fitting == own - {list}
    assert {type_words(hint) for hint in fitting} <= {"a whole number", "a number", "text", "true or false", "empty"}
