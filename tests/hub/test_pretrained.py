"""The model's own ways out and in: every bit and every setting comes back, and a save that fails takes nothing away."""

import dataclasses
import gc
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from loopback_client import LARGE_UPLOAD_WARNING
from loopback_hub import LoopbackHub
from refusals import refused
from short_runs import short_run
from small_config import SMALL
from training_runs import assert_same_bits

from vdvae_lr import VDVAE, VAEConfig
from vdvae_lr.errors import InputError
from vdvae_lr.hub.model_card import Provenance

pytestmark = [
    pytest.mark.filterwarnings(LARGE_UPLOAD_WARNING),
    pytest.mark.filterwarnings("ignore:Implicitly cleaning up:ResourceWarning"),
]
NAME = "tester/model"
WRITTEN = {"README.md", "SHA256SUMS", "config.json", "model.safetensors"}
EVERY_SETTING = VAEConfig(
    image_size=16,
    image_channels=1,
    enc_blocks="16x1,16d2,8x1,8d2,4x1,4d4,1x1",
    dec_blocks="1x1,4m1,8m4,16m8",
    width=12,
    custom_width_str="4:16,1:20",
    bottleneck_multiple=0.5,
    zdim=3,
    no_bias_above=4,
    num_mixtures=2,
    bits=5,
    likelihood="published_5bit",
    input_shift=-112.8666757481,
    input_scale=1 / 69.84780273,
)


def model_of(config: VAEConfig = SMALL, seed: int = 0) -> VDVAE:
    torch.manual_seed(seed)
    model = VDVAE(config).eval()
    model.provenance = Provenance(dataset="fashion")
    return model


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LoopbackHub]:
    """A Hub that this process is logged in to."""
    with LoopbackHub() as hub, hub.client(tmp_path / "home", token=hub.token):
        yield hub
    gc.collect()  # huggingface_hub leaves the folder of a failed upload to the garbage collector, which warns


def test_the_unusual_model_differs_from_the_default_in_every_setting() -> None:
    """Or the next test would not notice a setting that is lost."""
    usual = vars(VAEConfig())
    assert [name for name, value in vars(EVERY_SETTING).items() if value == usual[name]] == []


@pytest.mark.parametrize("config", [SMALL, EVERY_SETTING], ids=["colour", "grey, every setting unusual"])
def test_saved_and_loaded_every_bit_and_every_setting_is_back(tmp_path: Path, config: VAEConfig) -> None:
    model = model_of(config)
    assert model.save_pretrained(tmp_path / "made" / "on the way") is None
    again = VDVAE.from_pretrained(tmp_path / "made" / "on the way")
    assert dataclasses.asdict(again.config) == dataclasses.asdict(config)
    assert again.dataset == "fashion"
    assert_same_bits(model.state_dict(), again.state_dict())
    assert not again.training


def test_the_loaded_model_computes_the_same(tmp_path: Path) -> None:
    model = model_of()
    model.save_pretrained(tmp_path)
    drawn = []
    for one in (model, VDVAE.from_pretrained(tmp_path)):
        torch.manual_seed(1)
        with torch.inference_mode():
            drawn.append(one.generate(2).likelihood.mean())
    assert torch.equal(*drawn)


def test_a_save_leaves_four_files_that_all_may_read_alike(tmp_path: Path) -> None:
    model_of().save_pretrained(tmp_path / "folder")
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "folder").iterdir()}
    assert modes.keys() == WRITTEN
    assert len(set(modes.values())) == 1


def test_saving_over_an_earlier_model_replaces_its_files_and_no_other(tmp_path: Path) -> None:
    model_of(EVERY_SETTING).save_pretrained(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    later = model_of(seed=1)
    later.save_pretrained(tmp_path)
    again = VDVAE.from_pretrained(tmp_path)
    assert again.config == SMALL
    assert_same_bits(later.state_dict(), again.state_dict())
    assert contents(tmp_path).keys() == WRITTEN | {"notes.txt"}


@pytest.mark.parametrize("file", ["config", "weights", "card"])
def test_a_disk_that_refuses_halfway_takes_nothing_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    def full(*arguments: object) -> None:
        path = next(argument for argument in arguments if isinstance(argument, Path))
        path = path / "config.json" if path.is_dir() else path
        path.write_bytes(b"half of the")
        raise OSError(28, "No space left on device")

    model_of().save_pretrained(tmp_path)
    before = contents(tmp_path)
    places = {"config": "vdvae_lr.hub.pretrained.write_config", "weights": "vdvae_lr.hub.pretrained.write_weights"}
    monkeypatch.setattr(places.get(file, "huggingface_hub.ModelCard.save"), full)
    with pytest.raises(InputError) as caught:
        model_of(seed=1).save_pretrained(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} cannot be written (No space left on device); free space or choose another folder."
    )
    assert contents(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == WRITTEN


def test_a_file_in_the_folders_place_is_named_and_stays(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    for target in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(InputError, match=rf"^{target} cannot be written \(.*; free space or choose another"):
            model_of().save_pretrained(target)
    assert contents(tmp_path) == {"taken": b"mine"}


def test_what_is_pushed_comes_back(hub: LoopbackHub) -> None:
    model = model_of(EVERY_SETTING)
    address = model.push_to_hub(NAME)
    (commit,) = hub.repositories[NAME].commits.keys() - {next(iter(hub.repositories[NAME].commits))}
    assert address == f"{hub.endpoint}/{NAME}/commit/{commit}"
    assert hub.files(NAME).keys() == WRITTEN
    again = VDVAE.from_pretrained(NAME)
    assert again.config == EVERY_SETTING
    assert again.dataset == "fashion"
    assert_same_bits(model.state_dict(), again.state_dict())


def test_save_can_push_as_well(hub: LoopbackHub, tmp_path: Path) -> None:
    model_of().save_pretrained(tmp_path / "folder", push_to_hub=True, repo_id=NAME)
    weights = contents(tmp_path / "folder")["model.safetensors"]
    assert hub.files(NAME)["model.safetensors"] == weights
    assert f'from_pretrained("{NAME}")' in hub.files(NAME)["README.md"].decode()


def test_a_branch_is_pushed_to_and_an_absent_one_is_named(hub: LoopbackHub) -> None:
    hub.put(NAME, {"notes.txt": b"first"}, revision="trial")
    model = model_of()
    model.push_to_hub(NAME, branch="trial")
    assert hub.files(NAME, "trial").keys() == WRITTEN | {"notes.txt"}
    assert hub.files(NAME) == {}
    assert_same_bits(model.state_dict(), VDVAE.from_pretrained(NAME, revision="trial").state_dict())
    with pytest.raises(InputError, match=f"repository {NAME} has no revision 'absent'"):
        model.push_to_hub(NAME, branch="absent")


def test_a_card_that_the_hub_refuses_is_one_sentence(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VDVAE, "generate_model_card", lambda self, **facts: ModelCard("---\na: 1\n---\n"))
    monkeypatch.setattr(ModelCard, "save", lambda self, path: Path(path).write_text("---\na: [\n---\n"))
    with pytest.raises(InputError, match=f"^repository {NAME} cannot be used") as caught:
        model_of().push_to_hub(NAME)
    assert "\n" not in str(caught.value)
    assert hub.files(NAME) == {}


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    run = short_run(tmp_path)
    (newest,) = sorted((run / "checkpoints").glob("step-*"))[-1:]
    content = bytearray((newest / "ema.safetensors").read_bytes())
    content[-2] ^= 0x7F
    (newest / "ema.safetensors").write_bytes(content)
    with refused(f"{newest}/ema.safetensors", "is damaged or was changed", "take an earlier checkpoint"):
        VDVAE.from_pretrained(run)


class Killed(BaseException):
    """What ends a save between two of its steps."""


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("config", [SMALL, EVERY_SETTING], ids=["same settings", "other settings"])
def test_a_save_that_is_killed_between_two_files_leaves_one_model_or_a_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: VAEConfig, listed: bool
) -> None:
    """Whatever the moment, also over an earlier version's folder: no settings of one model with another's weights."""
    earlier, later = model_of(config), model_of(dataclasses.replace(SMALL, input_shift=-1.0), seed=1)
    replace, ends = Path.replace, []
    for steps in range(6):
        folder = tmp_path / str(steps)
        earlier.save_pretrained(folder)
        if not listed:
            (folder / "SHA256SUMS").unlink()
        left = [steps]

        def step(self: Path, target: Path, left: list[int] = left) -> Path:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return replace(self, target)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", step)
            with suppress(Killed):
                later.save_pretrained(folder)
        try:
            found = VDVAE.from_pretrained(folder)
        except InputError as error:
            assert f"{folder}/" in str(error) and "fetch or make it again" in str(error)
            ends.append("refused")
        else:
            whole = later if found.config == later.config else earlier
            assert found.config == whole.config
            assert_same_bits(dict(found.state_dict()), dict(whole.state_dict()))
            ends.append("later" if whole is later else "earlier")
        later.save_pretrained(folder)  # which mends it
        assert_same_bits(dict(VDVAE.from_pretrained(folder).state_dict()), dict(later.state_dict()))
    assert ends == ["earlier", "earlier", "refused", "refused", "later", "later"]


def test_what_a_killed_save_left_goes_a_day_later_and_what_is_being_saved_stays(tmp_path: Path) -> None:
    for name in (".saving-old", ".saving-new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    yesterday = time.time() - 90_000
    os.utime(tmp_path / ".saving-old", (yesterday, yesterday))
    model_of().save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == WRITTEN | {".saving-new"}


def test_a_card_outlives_loading_and_saving_again(tmp_path: Path) -> None:
    VDVAE.from_pretrained(short_run(tmp_path)).save_pretrained(tmp_path / "first")
    VDVAE.from_pretrained(tmp_path / "first").save_pretrained(tmp_path / "second")
    for name in ("README.md", "figures/reconstructions_and_samples.png", "config.json", "model.safetensors"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name


def test_an_empty_name_is_refused() -> None:
    """As of a variable that is not set: it would mean the current folder."""
    with pytest.raises(InputError, match="the name of the weights is empty"):
        VDVAE.from_pretrained("")
