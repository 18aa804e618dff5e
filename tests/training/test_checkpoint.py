"""A checkpoint brings back every bit, is whole or not there, and says what is wrong with it."""

import json
import os
import pickle
import random
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from training_runs import assert_same_bits, batches_of, fingerprint, tiny_pixels, tiny_settings, tiny_training

from vdvae_lr.errors import InputError
from vdvae_lr.files.digests import file_sha256
from vdvae_lr.files.run_folder import complete_checkpoints
from vdvae_lr.processes.world import World
from vdvae_lr.training.checkpoint import (
    BackgroundSaver,
    CheckpointFolder,
    Position,
    Snapshot,
    read_checked_state,
    restore,
)
from vdvae_lr.training.claimed_folder import _clear_leftovers, claimed_folder, folder_of
from vdvae_lr.training.step import TrainingStep


def trained(steps: int = 2, **changes: object) -> TrainingStep:
    training = tiny_training(**changes)
    for iteration in range(steps):
        training(iteration, 0.5, batches_of(tiny_pixels(4, iteration), 2))
    return training


def save(folder: CheckpointFolder, training: TrainingStep, iteration: int) -> Path:
    snapshot = Snapshot(training, tiny_settings(), {})
    snapshot.take(iteration, bad_images=3)
    folder.write(snapshot)
    return folder.folder / f"step-{iteration:08d}"


@pytest.fixture
def checkpoints(tmp_path: Path) -> CheckpointFolder:
    return CheckpointFolder(tmp_path, keep=2, snapshot_every=10)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_restored_run_goes_on_bit_for_bit(checkpoints: CheckpointFolder, precision: str) -> None:
    unbroken = trained(precision=precision)
    path = save(checkpoints, unbroken, 2)
    resumed = tiny_training(precision=precision, seed=5)
    resumed._seed = 0  # the noise's; the other seed only gave it other initial weights
    _, state, _ = checkpoints.newest_sound() or pytest.fail("nothing saved")
    assert restore(resumed, path, state) == Position(2, bad_images=3)
    for training in (unbroken, resumed):
        training(2, 1.0, batches_of(tiny_pixels(4, 2), 2))
    assert_same_bits(fingerprint(unbroken), fingerprint(resumed))
    assert torch.equal(unbroken.sums, resumed.sums)
    assert unbroken.optimiser.scaler.state_dict() == resumed.optimiser.scaler.state_dict()


def test_checkpoint_carries_its_settings(checkpoints: CheckpointFolder) -> None:
    path = save(checkpoints, trained(), 2)
    assert json.loads((path / "state.json").read_text())["settings"] == json.loads(json.dumps(tiny_settings().flat()))


def test_last_ones_and_snapshots_are_kept(checkpoints: CheckpointFolder) -> None:
    training = trained(0)
    for iteration in (8, 10, 12, 14, 16):
        save(checkpoints, training, iteration)
    assert [path.name for path in complete_checkpoints(checkpoints.folder)] == [
        "step-00000010",
        "step-00000014",
        "step-00000016",
    ]


def test_a_damaged_later_one_pushes_no_sound_one_out(tmp_path: Path) -> None:
    checkpoints, training = CheckpointFolder(tmp_path, keep=1, snapshot_every=0), trained(0)
    (save(checkpoints, training, 8) / "state.json").write_text("{")
    sound = save(checkpoints, training, 6)  # a run that had gone back behind the damaged one was stopped here
    found = checkpoints.newest_sound()
    assert found is not None and found[0] == sound


def test_running_sums_of_all_processes_come_back_once(
    checkpoints: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes with equal sums: the main one's checkpoint has both, and only the main one takes them back."""
    monkeypatch.setattr(World, "all_reduce_sum_", lambda self, values: values * self.size)
    pair = [tiny_training(World(rank, 2, torch.device("cpu"))) for rank in range(2)]
    for training in pair:
        training.sums.fill_(3.0)
        training.finite_steps.fill_(1.0)
        training.gather_sums()
    path = save(checkpoints, pair[0], 2)
    alone = tiny_training()  # the same steps count half as much among those of one process
    for training, expected in zip([*pair, alone], (6.0, 0.0, 3.0), strict=True):
        restore(training, path, read_checked_state(path))
        assert training.sums.tolist() == [expected] * len(training.sums)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "ema.safetensors", "optimiser.safetensors", "config.json", "state.json"]
)
@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_damage_is_named_and_the_one_before_is_used(checkpoints: CheckpointFolder, name: str, damage: str) -> None:
    training = trained(0)
    sound, damaged = save(checkpoints, training, 2), save(checkpoints, training, 4)
    content = bytearray((damaged / name).read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "remove":
        (damaged / name).unlink()
    else:
        (damaged / name).write_bytes(content if damage == "flip" else content[: len(content) // 2])
    found = checkpoints.newest_sound()
    assert found is not None
    assert found[0] == sound
    assert found[2] == [f"checkpoint {damaged} is damaged: {name} is missing, cut or changed."]


def test_two_hundred_random_damages_are_found(checkpoints: CheckpointFolder) -> None:
    """Cut, changed in a bit, longer, or gone: whichever file it is, the one before is used and the damage named."""
    training = trained(1)
    sound, damaged = save(checkpoints, training, 2), save(checkpoints, training, 4)
    contents = {path: path.read_bytes() for path in damaged.iterdir()}
    choices = random.Random(0)
    for _ in range(200):
        path = choices.choice(sorted(contents))
        content = bytearray(contents[path])
        kind = choices.choice(("cut", "flip", "longer", "gone"))
        if kind == "flip":
            bit = choices.choice((0, 1, 2, 3, 4, 6, 7))  # not the one that makes a digest's letter a capital: no damage
            content[choices.randrange(len(content))] ^= 1 << bit
        path.write_bytes(content[: choices.randrange(len(content))] if kind == "cut" else content)
        if kind == "longer":
            path.write_bytes(content + b"x")
        if kind == "gone":
            path.unlink()
        found = checkpoints.newest_sound()
        assert found is not None
        assert found[0] == sound, f"{kind} {path.name} was not found"
        assert str(damaged) in found[2][0]
        path.write_bytes(contents[path])
    found = checkpoints.newest_sound()
    assert found is not None and found[0] == damaged  # whole again


def test_digests_are_as_sha256sum_reads_them(checkpoints: CheckpointFolder) -> None:
    path = save(checkpoints, trained(0), 2)
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=path, check=True, capture_output=True)


def test_a_pickle_in_a_weight_files_place_does_not_run(checkpoints: CheckpointFolder, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "exploded"),)

    path = save(checkpoints, trained(0), 2) / "model.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    digests = path.with_name("SHA256SUMS")
    lines = [line for line in digests.read_text().splitlines() if path.name not in line]
    digests.write_text("\n".join([*lines, f"{file_sha256(path)}  {path.name}"]))  # as somebody with intent would
    found = checkpoints.newest_sound()
    assert found is not None
    with pytest.raises(InputError, match="damaged"):
        restore(tiny_training(), found[0], found[1])
    assert not (tmp_path / "exploded").exists()


def test_a_background_save_is_of_the_moment_it_was_asked_for(tmp_path: Path) -> None:
    checkpoints = CheckpointFolder(tmp_path, keep=9, snapshot_every=0)
    training = trained(2)
    saver = BackgroundSaver(checkpoints, Snapshot(training, tiny_settings(), {}))
    expected = fingerprint(training)
    saver.save(2, 0)
    training(2, 0.5, batches_of(tiny_pixels(4, 2), 2))
    saver.save(3, 0)
    saver.wait()
    saver.close()
    for path, ours in zip(complete_checkpoints(checkpoints.folder), (expected, fingerprint(training)), strict=True):
        resumed = tiny_training(seed=5)
        restore(resumed, path, read_checked_state(path))
        assert_same_bits(ours, fingerprint(resumed))


def test_a_background_save_that_fails_is_heard_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vdvae_lr.training.checkpoint.write_weights", full)
    snapshot = Snapshot(trained(0), tiny_settings(), {})
    saver = BackgroundSaver(CheckpointFolder(tmp_path, keep=2, snapshot_every=0), snapshot)
    saver.save(2, 0)
    with pytest.raises(InputError, match="No space left on device"):
        while True:
            saver.check()
    saver.check()  # once is enough
    saver.close()


def placed(path: Path, kind: str) -> None:
    """Put something other than a checkpoint at `path`."""
    if kind == "file":
        path.write_text("text")
    elif kind == "folder":
        path.mkdir()
        (path / "file").write_text("text")
    else:
        path.symlink_to(path.parent.parent / ("elsewhere" if kind == "link" else "nowhere"))


@pytest.mark.parametrize("name", ["step-00000004", ".step-00000004.part", ".step-00000004.old.part", "step-00000003"])
@pytest.mark.parametrize("kind", ["file", "folder", "link", "broken link"])
def test_what_is_in_a_checkpoints_way_leaves_nothing_behind(tmp_path: Path, kind: str, name: str) -> None:
    checkpoints, training = CheckpointFolder(tmp_path, keep=1, snapshot_every=0), trained(0)
    checkpoints.folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine").write_text("text")
    placed(checkpoints.folder / name, kind)
    for iteration in (4, 6):
        path = save(checkpoints, training, iteration)
        assert read_checked_state(path)["iteration"] == iteration
    _clear_leftovers(tmp_path)
    assert list(checkpoints.folder.iterdir()) == [path]
    assert (tmp_path / "elsewhere" / "mine").read_text() == "text"  # a link goes, not what it leads to


def test_leftovers_of_a_killed_process_go_with_the_next_start(tmp_path: Path) -> None:
    settings = tiny_settings(save_dir=str(tmp_path), desc="run")
    folder = folder_of(settings.run)
    with claimed_folder(settings):
        (folder / "checkpoints").mkdir()
    for place in ("images", "checkpoints"):
        for kind in ("file", "folder", "link", "broken link"):
            placed(folder / place / f".{kind}.part", kind)
    (folder / "images" / "step-00000002.png").write_text("picture")
    (folder / ".settings.json.part").write_text("half")
    with claimed_folder(settings):
        pass
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if ".lock" not in path.name}
    assert left == {"checkpoints", "images", "images/step-00000002.png", "settings.json"}


def test_only_damaged_ones_end_with_advice(checkpoints: CheckpointFolder) -> None:
    (save(checkpoints, trained(0), 2) / "state.json").write_text("{")
    with pytest.raises(InputError, match=r"state\.json is missing, cut or changed.*--fresh"):
        checkpoints.newest_sound()


def test_a_save_that_fails_leaves_what_was_there(
    checkpoints: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = trained(0)
    earlier = save(checkpoints, training, 2)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("vdvae_lr.training.checkpoint.write_weights", full)
    with pytest.raises(InputError, match="No space left on device"):
        save(checkpoints, training, 4)
    assert [path.name for path in checkpoints.folder.iterdir()] == [earlier.name]


def test_a_half_written_one_does_not_count(checkpoints: CheckpointFolder) -> None:
    path = save(checkpoints, trained(0), 2)
    shutil.copytree(path, path.with_name(".step-00000004.part"))
    found = checkpoints.newest_sound()
    assert found is not None
    assert found[0] == path
