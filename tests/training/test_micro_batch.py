"""`--n_batch auto`: a rule on a CPU, a trial on a card, one number for all processes and for the whole run."""

import json
from pathlib import Path
from typing import Any

import pytest
import shallow_runs
import torch
from training_runs import ALONE, tiny_settings, write_images

from vdvae_lr.cli.shared.config import settings_of_presets
from vdvae_lr.errors import InputError
from vdvae_lr.processes.world import World
from vdvae_lr.training import micro_batch
from vdvae_lr.training.loop import train
from vdvae_lr.training.micro_batch import found_by_trial, with_micro_batches
from vdvae_lr.training.settings import Settings
from vdvae_lr.training.step import TrainingStep

CARD = World(0, 1, torch.device("cuda"))  # in name only


def number_of(settings: Settings, world: World = ALONE) -> int | str:
    return with_micro_batches(settings, world)[0].run.n_batch


@pytest.mark.parametrize(
    ("preset", "processes", "n_batch"),
    [
        *(
            ("fashion", 1, 16),
            ("fashion", 2, 8),
            ("fashion_pretrain", 1, 32),
            ("cifar10", 1, 16),
            ("imagenet32", 1, 16),
        ),
        *(("imagenet64", 1, 4), ("ffhq256", 1, 1), ("ffhq256", 8, 1), ("ffhq1024", 1, 1)),
    ],
)
def test_on_a_cpu_a_micro_batch_has_a_bounded_size(
    preset: str, processes: int, n_batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(World, "highest", lambda _, number: number)
    world = World(0, processes, torch.device("cpu"))
    settings, notice = with_micro_batches(settings_of_presets(preset), world)
    assert settings.run.n_batch == n_batch
    assert settings.run.micro_batches(processes) * n_batch == settings.run.global_batch
    assert notice == ""


def test_a_step_has_16_images_of_each_process_if_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "highest", lambda _, number: number)
    settings, _ = with_micro_batches(tiny_settings(n_batch="auto", global_batch=0), World(0, 3, torch.device("cpu")))
    assert (settings.run.n_batch, settings.run.global_batch) == (16, 48)


def test_a_number_of_ones_own_stays() -> None:
    assert number_of(tiny_settings(n_batch=2, global_batch=8), CARD) == 2


@pytest.mark.parametrize(
    "settings",
    [tiny_settings(n_batch="auto", free_nats=1.0), shallow_runs.settings(n_batch="auto", global_batch=4)],
    ids=["free bits", "batch normalisation"],
)
def test_nothing_is_tried_where_the_loss_looks_at_a_micro_batch(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micro_batch, "found_by_trial", lambda *_: pytest.fail("a card would decide the loss"))
    assert number_of(settings, CARD) == 4


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of steps that were tried. The processor stands for a card that holds two images and no more."""
    found: list[int] = []
    take = TrainingStep.__call__

    def limited(step: TrainingStep, iteration: int, alpha: float, batches: Any) -> None:
        found.append(len(batches[0].pixels))
        if found[-1] <= 2:
            return take(step, iteration, alpha, batches)
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        except torch.OutOfMemoryError:
            if found[-1] == 8:
                raise RuntimeError("capture failed")  # noqa: B904 # as a broken capture hides it
            raise

    monkeypatch.setattr(TrainingStep, "__call__", limited)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (120, 1000))
    return found


def test_a_trial_finds_the_largest_number_that_fits(tried: list[int]) -> None:
    assert found_by_trial(tiny_settings(n_batch="auto", global_batch=8), ALONE, [8, 4, 2, 1]) == 2
    assert tried == [8, 4, 2]


def test_a_step_that_fills_the_card_does_not_fit(tried: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (90, 1000))
    assert found_by_trial(tiny_settings(n_batch="auto", global_batch=8), ALONE, [8, 4, 2, 1]) == 1
    assert tried == [8, 4, 2]  # one image is not tried: if it does not fit, the run itself says so


def test_another_failure_is_not_taken_for_a_small_card(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(TrainingStep, "__call__", broken)
    with pytest.raises(RuntimeError, match="no kernel image"):
        found_by_trial(tiny_settings(n_batch="auto"), ALONE, [4, 2, 1])


def test_the_smallest_card_decides_for_all(tried: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "highest", lambda _, number: max(number, -1))  # another process found 1
    assert found_by_trial(tiny_settings(n_batch="auto"), ALONE, [4, 2, 1]) == 1


def test_a_card_is_tried_once_and_the_run_keeps_the_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = {"data_root": str(write_images(tmp_path / "images")), "save_dir": str(tmp_path), "desc": "run"}

    def settings(**changes: Any) -> Settings:
        return tiny_settings(**places, **{"iters": 2, "n_batch": "auto"} | changes)

    def recorded() -> int:
        return int(json.loads((tmp_path / "run" / "settings.json").read_text())["n_batch"])

    trials = []
    monkeypatch.setattr(micro_batch, "found_by_trial", lambda *arguments: trials.append(arguments) or 2)
    chosen, notice = with_micro_batches(settings(), CARD)
    assert chosen.run.n_batch == 2
    assert notice == "n_batch auto is 2: of the numbers that divide 4, the largest that fits the card."
    assert train(chosen, ALONE) == 0 and recorded() == 2
    assert number_of(settings(), CARD) == number_of(settings()) == 2 and len(trials) == 1
    assert number_of(settings(fresh=True)) == 4  # what a processor takes without a trial
    assert number_of(settings(global_batch=3)) == 3  # no half of it would do; the folder refuses another global_batch
    assert train(settings(n_batch=1, test_eval=True), ALONE) == 0 and recorded() == 1  # a smaller card may go on
    (tmp_path / "run" / "settings.json").write_text("[]")
    assert number_of(settings()) == 4


def test_a_run_whose_loss_looks_at_micro_batches_cannot_change_them(tmp_path: Path) -> None:
    places = {"data_root": str(write_images(tmp_path / "images")), "save_dir": str(tmp_path), "desc": "run"}
    assert train(tiny_settings(**places, iters=2, free_nats=0.5), ALONE) == 0
    with pytest.raises(InputError, match=r"other settings \(n_batch: 2 → 4\)"):
        train(tiny_settings(**places, iters=2, free_nats=0.5, n_batch=4), ALONE)
