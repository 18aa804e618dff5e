"""A run that died of its images goes on: its steps are saved, the remedy works, and other images are noticed."""

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from launching import final_tensors, log_lines, log_of
from training_runs import ALONE, assert_same_bits, tiny_settings, write_images

from vdvae_lr.datasets.catalogue import open_splits
from vdvae_lr.datasets.folder import FolderSource
from vdvae_lr.datasets.sampler import TrainingOrder
from vdvae_lr.errors import InputError
from vdvae_lr.processes.world import World
from vdvae_lr.training import loop
from vdvae_lr.training import run as run_module
from vdvae_lr.training.checkpoint import Snapshot
from vdvae_lr.training.loop import train

SELDOM = {"iters_per_save": 100, "iters_per_eval": 100, "iters_per_images": 100, "iters_per_print": 4}
FAILED_STEP = 3  # in a run of six


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def settings(images: Path, save_dir: Path, **changes: Any) -> Any:
    return tiny_settings(data_root=str(images), save_dir=str(save_dir), desc="run", **SELDOM | changes)


def run(images: Path, save_dir: Path, **changes: Any) -> int:
    return train(settings(images, save_dir, **changes), ALONE)


def image_of_step(images: Path, step: int, micro_batch: int = 1) -> Path:
    """An image that a run first reads in that step."""
    chosen = settings(images, images)
    source = open_splits(chosen.data, 8, 3).train
    order = TrainingOrder(len(source), chosen.run.global_batch, chosen.run.n_batch, 0, 1, chosen.run.seed)
    return Path(source.describe(int(order.micro_batches(step)[micro_batch][1][0])))


def checkpoints(save_dir: Path) -> list[str]:
    return sorted(path.name for path in (save_dir / "run" / "checkpoints").iterdir())


def spoil(path: Path) -> None:
    path.write_text("no image")


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_run_saves_before_it_dies_of_an_image_and_the_remedy_it_names_goes_on(
    images: Path, tmp_path: Path, num_workers: int
) -> None:
    bad = image_of_step(images, FAILED_STEP)
    spoil(bad)
    assert run(images, tmp_path / "unbroken", bad_images="skip") == 0
    with pytest.raises(InputError, match=rf"{bad.name} .*--bad_images skip; the run is saved after step 3, and goes"):
        run(images, tmp_path / "broken", num_workers=num_workers)
    assert checkpoints(tmp_path / "broken") == ["step-00000003"]
    assert run(images, tmp_path / "broken", bad_images="skip") == 0
    assert_same_bits(final_tensors(tmp_path / "unbroken"), final_tensors(tmp_path / "broken"))
    assert log_lines(tmp_path / "unbroken") == log_lines(tmp_path / "broken")
    assert log_of(tmp_path / "broken")[-2]["bad_images"] == 1


def test_a_sound_image_in_its_place_is_a_remedy_too(images: Path, tmp_path: Path) -> None:
    assert run(images, tmp_path / "unbroken") == 0
    bad = image_of_step(images, FAILED_STEP)
    shutil.copy(bad, tmp_path / "sound.png")
    spoil(bad)
    with pytest.raises(InputError, match="put a sound image in its place"):
        run(images, tmp_path / "broken")
    shutil.copy(tmp_path / "sound.png", bad)
    assert run(images, tmp_path / "broken") == 0
    assert_same_bits(final_tensors(tmp_path / "unbroken"), final_tensors(tmp_path / "broken"))
    assert log_lines(tmp_path / "unbroken") == log_lines(tmp_path / "broken")


def test_an_image_that_cannot_be_read_in_the_first_step_leaves_nothing_to_save(images: Path, tmp_path: Path) -> None:
    spoil(image_of_step(images, 0))
    with pytest.raises(InputError, match=r"skip$"):
        run(images, tmp_path)
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert run(images, tmp_path, bad_images="skip") == 0


def test_an_image_of_the_step_after_a_save_costs_no_second_one(images: Path, tmp_path: Path) -> None:
    spoil(image_of_step(images, FAILED_STEP))
    with pytest.raises(InputError, match="saved after step 3"):
        run(images, tmp_path, iters_per_save=3)
    assert checkpoints(tmp_path) == ["step-00000003"]


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Has something done at the beginning of a step."""

    def arrange(step: int, action: Callable[[], None]) -> None:
        original, begun = loop.islice, 0

        def acting(batches: Any, count: int) -> Any:
            nonlocal begun
            if begun == step:
                action()
            begun += 1
            return original(batches, count)

        monkeypatch.setattr(loop, "islice", acting)

    return arrange


def test_an_image_that_disappeared_is_said_so_and_going_on_without_it_works(
    images: Path, tmp_path: Path, at_step: Any
) -> None:
    gone = image_of_step(images, FAILED_STEP)
    at_step(1, gone.unlink)
    with pytest.raises(InputError, match=rf"{gone.name} is no longer there: put it back.*saved after step 3"):
        run(images, tmp_path)
    with pytest.raises(InputError, match=r"train: 22 → 21 images\).*--accept_changed_images"):
        run(images, tmp_path)
    assert run(images, tmp_path, accept_changed_images=True) == 0
    assert [line["train"]["images"] for line in log_of(tmp_path) if line["kind"] == "images"] == [22, 21]


@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_an_image_that_may_not_be_read_says_nothing_of_the_image_and_is_never_skipped(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    """Expired rights to a network disk, or a failing one: replacing what cannot be read now would change the data."""
    path = image_of_step(images, FAILED_STEP)
    opened = Path.open

    def refuse(self: Path, *arguments: Any, **named: Any) -> Any:
        if self == path:
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr("builtins.open", lambda file, *rest, **named: refuse(Path(file), *rest, **named))
        patch.setattr(Path, "open", refuse)
        with pytest.raises(InputError, match=rf"{path.name} cannot be read \(Permission denied\).*saved after step 3"):
            run(images, tmp_path, bad_images=policy)
    assert run(images, tmp_path, bad_images=policy) == 0
    assert log_of(tmp_path)[-2]["bad_images"] == 0


def test_a_run_saves_before_it_dies_of_a_lost_reader(images: Path, tmp_path: Path, at_step: Any) -> None:
    def kill_readers() -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid or 0, signal.SIGKILL)

    assert run(images, tmp_path / "unbroken", iters=40) == 0
    at_step(2, kill_readers)
    with pytest.raises(InputError, match=r"a process that reads images died.*saved after step \d+") as caught:
        run(images, tmp_path / "broken", iters=40, num_workers=1)
    assert "--num_workers 0" in str(caught.value)
    assert run(images, tmp_path / "broken", iters=40, num_workers=0) == 0
    assert_same_bits(final_tensors(tmp_path / "unbroken"), final_tensors(tmp_path / "broken"))
    assert log_lines(tmp_path / "unbroken") == log_lines(tmp_path / "broken")


def test_an_unreadable_held_out_image_costs_no_step_and_its_remedy_works(images: Path, tmp_path: Path) -> None:
    more = write_images(tmp_path / "more", 120)
    for path in more.iterdir():  # so that another held-out image can stand in
        path.rename(images / f"more-{path.name}")
    spoil(Path(open_splits(settings(images, tmp_path).data, 8, 3).valid.describe(0)))
    with pytest.raises(InputError, match="--bad_images skip"):
        run(images, tmp_path, iters_per_eval=3)
    assert checkpoints(tmp_path) == ["step-00000003"]
    assert run(images, tmp_path, iters_per_eval=3, bad_images="skip") == 0


def half_a_run(images: Path, save_dir: Path) -> None:
    """Stops after three of six steps."""
    bad = image_of_step(images, FAILED_STEP)
    content = bad.read_bytes()
    spoil(bad)
    with pytest.raises(InputError):
        run(images, save_dir)
    bad.write_bytes(content)


def add(images: Path) -> None:
    shutil.copy(images / "000.png", images / "new.png")


def remove(images: Path) -> None:
    image_of_step(images, 0).unlink()


def rename(images: Path) -> None:
    path = image_of_step(images, 0)
    path.rename(path.with_name("000-renamed.png"))


@pytest.mark.parametrize("change", [add, remove, rename])
def test_other_images_are_refused_before_anything_is_written_and_accepted_where_that_is_said(
    images: Path, tmp_path: Path, change: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    half_a_run(images, tmp_path)
    recorded = (tmp_path / "run" / "settings.json").read_text(), log_lines(tmp_path)
    change(images)
    with pytest.raises(InputError, match=r"images are not those that run .* had at step 3 \(.*--desc, or go on"):
        run(images, tmp_path, num_workers=1)
    assert ((tmp_path / "run" / "settings.json").read_text(), log_lines(tmp_path)) == recorded
    assert run(images, tmp_path, accept_changed_images=True) == 0
    assert "from here the run differs from an unbroken one" in capsys.readouterr().out
    assert run(images, tmp_path) == 0  # its last checkpoint knows these


def test_images_that_moved_with_their_names_go_on_silently(images: Path, tmp_path: Path) -> None:
    assert run(images, tmp_path / "unbroken") == 0
    half_a_run(images, tmp_path / "broken")
    moved = shutil.move(images, tmp_path / "moved")
    assert run(moved, tmp_path / "broken") == 0
    assert_same_bits(final_tensors(tmp_path / "unbroken"), final_tensors(tmp_path / "broken"))
    assert log_lines(tmp_path / "unbroken") == log_lines(tmp_path / "broken")


def test_a_finished_run_and_one_that_only_evaluates_say_that_the_images_are_others(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(images, tmp_path)
    before = final_tensors(tmp_path)
    add(images)
    for test_eval in (False, True):
        capsys.readouterr()
        assert run(images, tmp_path, test_eval=test_eval) == 0
        assert "The images are not those that run" in capsys.readouterr().out
    assert_same_bits(before, final_tensors(tmp_path))


def test_a_checkpoint_of_an_earlier_version_goes_on_without_a_word(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "Snapshot", lambda step, settings, images: Snapshot(step, settings, {}))
        half_a_run(images, tmp_path)
    (state,) = (tmp_path / "run" / "checkpoints").glob("step-*/state.json")
    assert json.loads(state.read_text())["images"] == {}
    add(images)
    assert run(images, tmp_path) == 0
    assert "The images are not" not in capsys.readouterr().out


def test_what_was_found_is_printed_and_logged_once(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "notes.txt").write_text("of the photographer")
    for _ in range(2):
        assert run(images, tmp_path) == 0
        output = capsys.readouterr().out
        assert "Images: 24 found, split by their names: 22 training, 1 validation, 1 test.\n" in output
        assert "Left out: 1 × .txt.\n" in output
    (line,) = (line for line in log_of(tmp_path) if line["kind"] == "images")
    assert {part: line[part]["images"] for part in ("train", "valid", "test")} == {"train": 22, "valid": 1, "test": 1}
    assert line["left_out"] == {".txt": 1}


def test_processes_that_find_different_images_end(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(World, "agree", lambda self, number: False)
    with pytest.raises(InputError, match=r"do not find the same images.*--data_root"):
        run(images, tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_run_whose_folder_was_moved_to_another_disk_goes_on(images: Path, tmp_path: Path) -> None:
    """What a full disk's error advises."""
    assert run(images, tmp_path / "unbroken") == 0
    half_a_run(images, tmp_path / "full")
    (tmp_path / "roomy").mkdir()
    (tmp_path / "full" / "run").rename(tmp_path / "roomy" / "run")
    assert run(images, tmp_path / "roomy") == 0
    assert_same_bits(final_tensors(tmp_path / "unbroken"), final_tensors(tmp_path / "roomy"))


def test_a_name_that_is_not_utf_8_goes_through_a_whole_run(images: Path, tmp_path: Path) -> None:
    (images / "000.png").rename(images / os.fsdecode(b"caf\xe9.png"))
    half_a_run(images, tmp_path)
    assert run(images, tmp_path) == 0


def test_equal_names_in_another_order_are_other_images(images: Path) -> None:
    names = ["a.png", "b.png"]
    first, again, reversed_names = (FolderSource(images, order, 8, 3) for order in (names, names, names[::-1]))
    assert first.fingerprint() == again.fingerprint() != reversed_names.fingerprint()
