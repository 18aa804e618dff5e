"""What a run shows of its latents while it trains: in the log, in TensorBoard, and at no cost to the run itself."""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from launching import final_tensors, log_lines, log_of
from measured_pixels import latent_statistics, measure_recovery, silently
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_runs import ALONE, assert_same_bits, tiny_settings, write_images

from vdvae_lr.datasets.catalogue import open_splits
from vdvae_lr.datasets.loader import Batch, evaluation_batches
from vdvae_lr.datasets.sampler import evaluation_shards
from vdvae_lr.errors import EXIT_RUN_AGAIN, InputError
from vdvae_lr.evaluation.bound import evaluate_bound
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.training import observe
from vdvae_lr.training.loop import train
from vdvae_lr.training.observe import group_rate_curves

WATCHED = 5
THRESHOLD = 1e-7
KEYS = {
    "watched_examples",
    "recovered_information_nats_per_dim",
    "recovered_information_standard_error_nats_per_dim",
    "information_from_samples_nats_per_dim",
    "information_from_samples_standard_error_nats_per_dim",
    "active_latents_share",
    "active_channels_share",
    "group_active_latents_shares",
    "group_active_channels_shares",
}


@pytest.fixture(scope="module", autouse=True)
def low_threshold() -> Iterator[None]:
    """So low that of a model that learned for six steps some units are active and some are not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vdvae_lr.evaluation.watch.ACTIVE_VARIANCE", THRESHOLD)
        yield


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("observe") / "images", 300)  # a twentieth for validation


def run(images: Path, save_dir: Path, **changes: Any) -> int:
    plan = {"data_root": str(images), "desc": "run", "watch_examples": WATCHED, "lr": 0.003} | changes
    return train(tiny_settings(save_dir=str(save_dir), **plan), ALONE)


@pytest.fixture(scope="module")
def finished(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a finished run lies."""
    folder = tmp_path_factory.mktemp("finished")
    assert run(images, folder) == 0
    return folder


def evaluations(save_dir: Path) -> list[dict[str, Any]]:
    return [line for line in log_of(save_dir) if line["kind"] == "eval"]


def curves_of(save_dir: Path) -> dict[str, list[tuple[int, float]]]:
    (path,) = (save_dir / "run" / "tensorboard").iterdir()
    events = EventAccumulator(str(path)).Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_log_has_what_the_averaged_weights_measure(images: Path, finished: Path) -> None:
    settings = tiny_settings(data_root=str(images))
    model = VDVAE(settings.model)
    model.load_state_dict(load_file(finished / "run" / "checkpoints" / "step-00000006" / "ema.safetensors"))
    source = open_splits(settings.data, 8, 3).valid
    assert len(source) > WATCHED

    def first(count: int) -> Iterator[Batch]:
        return evaluation_batches(source, evaluation_shards(count, 3, 0, 1), 0, False)

    line = evaluations(finished)[-1]
    assert line["examples"] == len(source)
    assert line["watched_examples"] == WATCHED
    bound = evaluate_bound(model, first(len(source)), seed=0, world=ALONE)
    assert line["rate_nats_per_dim"] == pytest.approx(bound.rate, rel=1e-3)
    measuring = Measuring(source, WATCHED, 3, 0, ALONE, silently)
    recovered = {quantity.key: quantity.total for quantity in measure_recovery(model, measuring).quantities}
    known = recovered["recovered_sampled_image"]
    assert line["recovered_information_nats_per_dim"] == pytest.approx(known.value, rel=1e-3)
    error = line["recovered_information_standard_error_nats_per_dim"]
    assert error == pytest.approx(known.standard_error, rel=1e-3)
    statistics = latent_statistics(model, first(WATCHED), world=ALONE)
    latents, channels = (statistics.active(unit, THRESHOLD, relative=False).share() for unit in ("latents", "channels"))
    assert 0 < latents < 1
    assert line["active_latents_share"] == latents
    assert line["active_channels_share"] == channels
    sizes = [2, 32, 128]  # latents of the three groups
    shares = line["group_active_latents_shares"]
    assert sum(s * n for s, n in zip(shares, sizes, strict=True)) == pytest.approx(latents * sum(sizes))
    assert sum(line["group_active_channels_shares"]) / 3 == pytest.approx(channels)


def test_tensorboard_has_a_curve_a_group_that_sorts_from_coarse_to_fine(finished: Path) -> None:
    curves, lines = curves_of(finished), evaluations(finished)
    names = sorted(name for name in curves if name.startswith("eval_group_rate/"))
    assert names == ["eval_group_rate/00_1x1", "eval_group_rate/01_4x4", "eval_group_rate/02_8x8"]
    for group, name in enumerate(names):
        expected = [(line["iteration"], line["group_rates_nats_per_dim"][group]) for line in lines]
        assert [step for step, _ in curves[name]] == [3, 6]
        assert [value for _, value in curves[name]] == pytest.approx([value for _, value in expected], rel=1e-5)
    for name in ("recovered_information_nats_per_dim", "active_latents_share", "active_channels_share"):
        assert [value for _, value in curves[f"eval/{name}"]] == pytest.approx([line[name] for line in lines])


@pytest.mark.parametrize(("groups", "first", "last"), [(3, "00", "02"), (75, "00", "74"), (120, "000", "119")])
def test_curve_names_sort_as_groups_do(groups: int, first: str, last: str) -> None:
    names = list(group_rate_curves("eval", [0.0] * groups, [16] * groups))
    assert names == sorted(names)
    assert (names[0], names[-1]) == (f"eval_group_rate/{first}_16x16", f"eval_group_rate/{last}_16x16")


def test_watching_changes_nothing_else(images: Path, tmp_path: Path, finished: Path, capsys: Any) -> None:
    assert run(images, tmp_path, watch_examples=0) == 0
    assert_same_bits(final_tensors(tmp_path), final_tensors(finished))
    for without, line in zip(evaluations(tmp_path), evaluations(finished), strict=True):
        assert line.keys() - without.keys() == KEYS
        assert {name: line[name] for name in without} == without
    assert "recovered" not in capsys.readouterr().out  # nor is it on the console


def test_a_run_goes_on_with_another_number_of_examples_watched(images: Path, tmp_path: Path) -> None:
    assert run(images, tmp_path, watch_examples=0) == 0
    assert run(images, tmp_path, watch_examples=2, test_eval=True) == 0
    last = log_of(tmp_path)[-1]
    assert (last["kind"], last["watched_examples"]) == ("test", 2)
    with pytest.raises(InputError, match="watch_examples is -1; it must be 0 or more"):
        tiny_settings(watch_examples=-1)


def test_a_single_image_has_no_active_units(images: Path, tmp_path: Path) -> None:
    assert run(images, tmp_path, eval_examples=1) == 0
    line = evaluations(tmp_path)[-1]
    assert line["watched_examples"] == 1
    missing = {name for name, value in line.items() if value is None}
    known = {"watched_examples", "recovered_information_nats_per_dim", "information_from_samples_nats_per_dim"}
    assert missing == KEYS - known | {"negative_elbo_standard_error_nats_per_dim"}
    assert not any("share" in name for name in curves_of(tmp_path))


def test_a_signal_while_watching_leaves_the_evaluation_to_the_next_start(
    images: Path, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Sequence[int]] = []

    def interrupted(model: VDVAE, batches: Iterator[Batch], **plan: Any) -> Any:
        def counted() -> Iterator[Batch]:
            for batch in batches:
                seen.append(batch.indices.tolist())
                os.kill(os.getpid(), signal.SIGTERM)
                yield batch

        return watch_latents(model, counted(), **plan)

    watch_latents = observe.watch_latents
    monkeypatch.setattr(observe, "watch_latents", interrupted)
    assert run(images, tmp_path) == EXIT_RUN_AGAIN
    assert seen == [[0, 1]]  # one batch, of the three
    assert evaluations(tmp_path) == []
    monkeypatch.setattr(observe, "watch_latents", watch_latents)
    assert run(images, tmp_path) == 0
    assert log_lines(tmp_path) == log_lines(finished)
    assert_same_bits(final_tensors(tmp_path), final_tensors(finished))
