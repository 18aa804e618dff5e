"""Settings: defaults < base preset < preset < command line; a slip is named, with the nearest name, never guessed."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from conftest import SMALL
from reference_cases import PUBLISHED_MODELS

from vdvae_lr.cli.config import apply_values, resolve_settings
from vdvae_lr.errors import InputError
from vdvae_lr.hub.model_card import Provenance
from vdvae_lr.hub.vdvae import VDVAE
from vdvae_lr.presets import read_presets
from vdvae_lr.training.settings import RunSettings, Settings

RENAMED = {"ffhq_256": "ffhq256", "ffhq_1024": "ffhq1024"}  # data sets
# of the published code's own folders
PLACES = {"desc", "save_dir", "data_root", "restore_path", "restore_ema_path", "restore_optimizer_path"}
CADENCE = {"iters_per_print", "iters_per_save"}  # ours are shorter: on one card 1,000 iterations are half an hour


def resolve(line: str) -> Settings:
    return resolve_settings(line.split(), "train.py")


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
    shared = ours.keys() & (published.keys() - PLACES - CADENCE)
    assert len(shared) >= 24
    assert {key: ours[key] for key in shared} == {key: published[key] for key in shared}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("iterss = 3", ["'iterss'", "did you mean 'iters'"]),
        ('iters = "3"', ["iters is '3'", "a whole number"]),
        ("iters = 3.5", ["iters is 3.5", "a whole number"]),
        ("iters = true", ["iters is True", "a whole number"]),
        ('lr = "fast"', ["lr is 'fast'", "a number"]),
        ("compile = 1", ["compile is 1", "true or false"]),
        ('lr_form = "rwa"', ["lr_form is 'rwa'", "raw"]),
        ("iters = 0", ["iters is 0", "at least 1"]),
        ("[run]\niters = 3", ["'run'"]),
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


@pytest.mark.parametrize(("word", "value"), [("--compile", True), ("--no_compile", False), ("--no-compile", False)])
def test_flags(tmp_path: Path, word: str, value: bool) -> None:
    opposite = preset_file(tmp_path, "opposite", f"compile = {str(not value).lower()}")
    assert resolve(f"--hps {opposite}").run.compile is not value
    assert resolve(f"--hps {opposite} {word}").run.compile is value


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
        ("--compile yes", ["yes"]),
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
    VDVAE(config, Provenance(dataset="folder")).save_pretrained(tmp_path / "mine")
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
