"""Settings: defaults < base preset < preset < command line; a slip is named, with the nearest name, never guessed."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from reference_cases import PUBLISHED_MODELS
from refusals import refused
from small_config import SMALL

from vdvae_lr.cli.shared.config import apply_values, resolve_settings
from vdvae_lr.errors import InputError
from vdvae_lr.files.presets import read_presets
from vdvae_lr.hub.model_card import Provenance
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.training.settings import RunSettings, Settings

RENAMED = {"ffhq_256": "ffhq256", "ffhq_1024": "ffhq1024"}  # data sets
# of the published code's own folders
PLACES = {"desc", "save_dir", "data_root", "restore_path", "restore_ema_path", "restore_optimizer_path"}
CADENCE = {"iters_per_print", "iters_per_save"}  # ours are shorter: on one card 1,000 iterations are half an hour


def resolve(line: str) -> Settings:
    return resolve_settings(line.split(), "train.py")[0]


def preset_file(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return str(path)


def test_defaults_then_base_then_preset_then_command_line() -> None:
    """One setting from each level: `fashion` is built on `fashion_pretrain`."""
    settings = resolve("--hps fashion --iters 7").flat()
    base, preset = read_presets("fashion_pretrain"), read_presets("fashion")
    assert settings["keep_checkpoints"] == RunSettings().keep_checkpoints  # no preset speaks of it
    assert settings["zdim"] == base["zdim"] != Settings().model.zdim
    assert settings["lr"] == preset["lr"] != base["lr"]
    assert settings["iters"] == 7 != preset["iters"]


def test_presets_apply_left_to_right(tmp_path: Path) -> None:
    first = preset_file(tmp_path, "first", "iters = 11\nseed = 12\n")
    second = preset_file(tmp_path, "second", "iters = 21\n")
    assert (resolve(f"--hps {first},{second}").run.iters, resolve(f"--hps {second},{first}").run.iters) == (21, 11)
    assert resolve(f"--hps {first},{second}").run.seed == 12


def test_base_is_inherited_through_a_chain(tmp_path: Path) -> None:
    base = preset_file(tmp_path, "base", "iters = 11\nseed = 12\nlr = 0.5\n")
    middle = preset_file(tmp_path, "middle", f'base = "{base}"\nseed = 22\nlr = 0.25\n')
    top = preset_file(tmp_path, "top", f'base = "{middle}"\nlr = 0.125\n')
    assert read_presets(top) == {"iters": 11, "seed": 22, "lr": 0.125}


def test_a_file_may_share_its_name_with_the_preset_it_builds_on(tmp_path: Path) -> None:
    mine = preset_file(tmp_path, "fashion", 'base = "fashion"\nseed = 5\n')
    assert resolve(f"--hps {mine}").flat() == resolve("--hps fashion --seed 5").flat() | {"hps": mine}


def test_paper_preset_changes_only_the_formula() -> None:
    settings, without = resolve("--hps ffhq256,paper"), resolve("--hps ffhq256")
    objective = settings.objective
    assert (objective.lr_form, objective.lr_target) == ("raw", "live")
    assert (objective.lr_image, objective.lr_latents) == ("mean", "posterior")
    assert dataclasses.replace(settings, objective=without.objective, run=without.run) == without
    assert settings.run == dataclasses.replace(without.run, hps="ffhq256,paper")


@pytest.mark.parametrize("name", PUBLISHED_MODELS)
def test_published_presets_hold_the_published_settings(name: str) -> None:
    published: dict[str, Any] = PUBLISHED_MODELS[name]["hps"]
    published = published | {"dataset": RENAMED.get(published["dataset"], published["dataset"])}
    ours = resolve(f"--hps {name}").flat()
    shared = ours.keys() & (published.keys() - PLACES - CADENCE - {"n_batch"})
    assert len(shared) >= 23
    assert {key: ours[key] for key in shared} == {key: published[key] for key in shared}
    assert ours["n_batch"] == "auto" and ours["global_batch"] % published["n_batch"] == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("iterss = 3", ["'iterss'", "did you mean 'iters'"]),
        ('iters = "3"', ["iters is '3'", "a whole number"]),
        ("iters = 3.5", ["iters is 3.5", "a whole number"]),
        ("iters = true", ["iters is True", "a whole number"]),
        ('lr = "fast"', ["lr is 'fast'", "a number"]),
        ("fresh = 1", ["fresh is 1", "true or false"]),
        ('lr_form = "rwa"', ["lr_form is 'rwa'", "raw"]),
        ("iters = 0", ["iters is 0", "1 or more"]),
        ("[run]\niters = 3", ["'run' is a table", "NAME = VALUE, without [run]"]),
        ("run.iters = 3", ["'run' is a table"]),
        ("iters = 1e5", ["iters is 100000.0", "write 100000"]),
        ("iters = [3]", ["iters is [3]", "a whole number"]),
        ('lr = "1e-4"', ["lr is '1e-4'", "write 1e-4, without quotes"]),
        ('fresh = "False"', ["fresh is 'False'", "write false, without quotes"]),
        ("desc = 2020-01-02", ["desc is 2020-01-02", "it must be text"]),
        ("lr = nan", ["mine.toml: lr is nan", "it must be 0 or more"]),
        ("lr = inf", ["mine.toml: lr is inf", "it must be finite"]),
        ("seed = 99999999999999999999", ["seed is 99999999999999999999", "at most"]),
        ('save_dir = "a\\u0000b"', ["save_dir", "NUL"]),
        ('save_dir = "~nobody-is-called-so/a"', ["save_dir", "no home folder of user 'nobody-is-called-so'"]),
        ('hps = "fashion"', ["sets hps", 'base = "NAME"']),
        ("base = 3", ["base is 3", "the name of one preset"]),
        ("lr = 1\nlr = 2\nseed = 3", ["cannot be read", "line 2"]),
        ("# comment\niters 3", ["cannot be read", "line 2"]),
        ("iters = ", ["cannot be read"]),
        ('base = "a\\u0000"', ["cannot be read", "null"]),
        ('base = "fashon"', ["'fashon'", "did you mean 'fashion'"]),
    ],
)
def test_mistake_in_a_preset_is_named(tmp_path: Path, text: str, words: list[str]) -> None:
    path = preset_file(tmp_path, "mine", text)
    with pytest.raises(InputError) as caught:
        resolve(f"--hps {path}")
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("iters = 3".encode("utf-16"), "it is UTF-16 text; save it as UTF-8"),
        ("iters = 3".encode("utf-16-be"), "cannot be read"),
        ('# ü\ndesc = "é"'.encode("latin-1"), "line 1 is not UTF-8 text; save the file as UTF-8"),
        ('iters = 3\ndesc = "é"'.encode("latin-1"), "line 2 is not UTF-8 text; save the file as UTF-8"),
        (b"#" * 2_000_000, "it is larger than 1,048,576 bytes"),
    ],
)
def test_preset_that_is_no_text_says_what_to_do(tmp_path: Path, content: bytes, cause: str) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    with refused("mine.toml", cause, "mend the file"):
        read_presets(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize("locale", ["utf-8", "latin-1", "ascii"])
def test_preset_is_utf_8_with_or_without_a_mark_and_whatever_the_locale(
    tmp_path: Path, locale: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Editors of Windows begin a file with a byte-order mark, and end lines in their own way."""
    monkeypatch.setattr("locale.getpreferredencoding", lambda do_setlocale=True: locale)
    text = 'iters = 3\r\ndesc = "Größe"\r\n'.encode()
    for mark in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "mine.toml").write_bytes(mark + text)
        assert read_presets(str(tmp_path / "mine.toml")) == {"iters": 3, "desc": "Größe"}


def test_a_tilde_is_the_same_run_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    preset_file(tmp_path, "other", "iters = 7\n")
    mine = preset_file(tmp_path, "mine", 'base = "~/other.toml"\nsave_dir = "~/runs"\nrestore_path = "~/w.th"\n')
    preset = resolve(f"--hps {mine}")
    assert preset == resolve("--hps ~/mine.toml") == resolve("--hps=~/mine.toml")
    assert preset == resolve(f"--hps {tmp_path}/mine.toml --save_dir=~/runs --restore_path {tmp_path}/w.th")
    assert (preset.run.iters, preset.run.save_dir) == (7, f"{tmp_path}/runs")
    assert preset.run.name == "mine"


def test_a_base_is_looked_for_in_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "presets").mkdir()
    preset_file(tmp_path / "presets", "below", "iters = 7\n")
    preset_file(tmp_path / "presets", "mine", 'base = "below.toml"\n')
    monkeypatch.chdir(tmp_path)
    with refused("below.toml", "there is", "relative paths start in the working folder"):
        read_presets("presets/mine.toml")
    preset_file(tmp_path / "presets", "mine", 'base = "presets/below.toml"\n')
    assert read_presets("presets/mine.toml") == {"iters": 7}


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("FFHQ256", "did you mean 'ffhq256'?"),
        ("Fashion", "did you mean 'fashion'?"),
        ("hps/fashion", "did you mean 'fashion'?"),
        ("hps/fashon.toml", "did you mean 'fashion'?"),
        ("fashion,", "has an empty name beside a comma"),
        (",fashion", "has an empty name beside a comma"),
        ("fashion,,paper", "has an empty name beside a comma"),
        ("x" * 300, "there is no preset"),
        ("x" * 300 + ".toml", "File name too long"),
        (".", "there is no preset"),
    ],
)
def test_preset_that_is_not_called_so(names: str, words: str) -> None:
    with pytest.raises(InputError, match=re.escape(words)):
        read_presets(names)


def test_spaces_around_presets_do_not_matter() -> None:
    assert read_presets(" fashion , paper ") == read_presets("fashion,paper")


def test_whole_number_does_for_a_real_one(tmp_path: Path) -> None:
    assert resolve(f"--hps {preset_file(tmp_path, 'mine', 'alpha_T = 2')}").objective.alpha_T == 2.0


def test_unknown_preset_gets_the_nearest_name() -> None:
    with pytest.raises(InputError, match=r"no preset 'fhq256' \(did you mean 'ffhq256'\?\).*imagenet64"):
        resolve("--hps fhq256")
    with pytest.raises(InputError, match="no preset 'papier'"):
        resolve("--hps ffhq256,papier")


def test_preset_that_is_its_own_base_is_refused(tmp_path: Path) -> None:
    first = preset_file(tmp_path, "first", f'base = "{tmp_path}/second.toml"')
    preset_file(tmp_path, "second", f'base = "{first}"')
    with pytest.raises(InputError, match=r"its own base \(first.toml → second.toml → first.toml\)"):
        resolve(f"--hps {first}")


def test_apply_values_leaves_the_settings_it_was_given() -> None:
    settings = Settings()
    changed = apply_values(settings, {"lr": 0.5, "width": 16}, "a test")
    assert (changed.optimisation.lr, changed.model.width) == (0.5, 16)
    assert settings == Settings() and changed.run is settings.run


@pytest.mark.parametrize("option", ["--hps", "--hparam_sets", "--hparam-sets"])
@pytest.mark.parametrize("joint", [" ", "="])
def test_every_spelling_of_hps_reads_the_preset(option: str, joint: str) -> None:
    assert resolve(f"{option}{joint}cifar10") == resolve("--hps cifar10")
    assert resolve("--hps cifar10").model.width == 384


def test_last_hps_wins_whole() -> None:
    assert resolve("--hps cifar10 --hps ffhq256") == resolve("--hps ffhq256")


@pytest.mark.parametrize(("word", "value"), [("--fresh", True), ("--no_fresh", False), ("--no-fresh", False)])
def test_flags(tmp_path: Path, word: str, value: bool) -> None:
    opposite = preset_file(tmp_path, "opposite", f"fresh = {str(not value).lower()}")
    assert resolve(f"--hps {opposite}").run.fresh is not value
    assert resolve(f"--hps {opposite} {word}").run.fresh is value


def test_help_mentions_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        resolve("--help")
    output = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert not ended.value.code
    assert {name for name in Settings().flat() if not re.search(rf"--{name}\b", output)} == set()
    assert "--hparam_sets" in output and "usage: train.py" in output


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--alpha_t 2", ["--alpha_t", "Perhaps you meant", "--alpha_T FLOAT"]),
        ("--iter 2", ["--iter", "--iters INT"]),
        ("--n_batch many", ["--n_batch", "'many'"]),
        ("--lr_form rwa", ["--lr_form", "raw"]),
        ("--lr", ["--lr", "Missing value"]),
        ("--hps", ["--hps", "Missing value"]),
        ("--desc --hps", ["--desc", "Missing value"]),
        ("--fresh yes", ["yes"]),
        ("ffhq256", ["ffhq256"]),
    ],
)
def test_slip_on_the_command_line_ends_with_two(
    capsys: pytest.CaptureFixture[str], line: str, words: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        resolve(line)
    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert [word for word in words if word not in captured.err] == []
    assert "Traceback" not in captured.err and not captured.out


@pytest.mark.parametrize("line", ["--lr -1", "--n_batch 0", "--width 0", "--alpha_T nan", "--adam_beta2 1"])
def test_value_the_settings_refuse_is_one_sentence_about_it(line: str) -> None:
    """tyro lets `__post_init__`'s InputError through: the sentence reaches the person as it was written."""
    name = line.split()[0].removeprefix("--")
    with pytest.raises(InputError, match=rf"^{name} is "):
        resolve(line)


def test_weights_bring_their_settings_where_no_preset_is_named(tmp_path: Path) -> None:
    config = dataclasses.replace(SMALL, bits=6, input_shift=-7.5)
    model = VDVAE(config)
    model.provenance = Provenance(dataset="folder")
    model.save_pretrained(tmp_path / "mine")
    settings = resolve(f"--pretrained {tmp_path / 'mine'} --iters 5")
    assert (settings.model, settings.data.dataset, settings.run.name) == (config, "folder", "from-mine")
    assert (settings.run.iters, settings.run.pretrained) == (5, str(tmp_path / "mine"))
    assert resolve(f"--hps cifar10 --pretrained {tmp_path / 'mine'}").model == resolve("--hps cifar10").model


def test_weights_of_a_presets_model_bring_the_preset(tmp_path: Path) -> None:
    VDVAE.from_pretrained("fashion").save_pretrained(tmp_path / "copy")
    expected = resolve("--hps fashion")
    got = resolve(f"--pretrained {tmp_path / 'copy'}")
    assert dataclasses.replace(got, run=expected.run) == expected
    assert got.run == dataclasses.replace(expected.run, pretrained=str(tmp_path / "copy"))
