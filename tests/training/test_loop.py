"""Whole runs through `train`: resuming, stopping, skipping, evaluating; on a folder of tiny images."""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from launching import final_tensors, log_lines
from safetensors.torch import load_file
from training_runs import ALONE, assert_same_bits, tiny_settings, write_images

from vdvae_lr.errors import EXIT_RUN_AGAIN, InputError
from vdvae_lr.training import loop
from vdvae_lr.training.loop import train
from vdvae_lr.training.run import prepared_run

SCHEDULES: dict[str, Any] = {
    "beta_warmup_iters": 5,
    "alpha_warmup_iters": 2,
    "alpha_end": 0.5,
    "alpha_end_iters": 4,
    "lr_reading": "random",
    "free_nats": 0.5,
}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def run(images: Path, save_dir: Path, **changes: Any) -> int:
    return train(tiny_settings(data_root=str(images), save_dir=str(save_dir), desc="run", **changes), ALONE)


@pytest.fixture
def interrupted_after(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Sends this process a signal in the middle of the step that begins after so many iterations."""

    def arrange(iterations: int, number: signal.Signals = signal.SIGINT) -> None:
        original = loop.islice

        def interrupting(batches: Any, count: int) -> Any:
            nonlocal iterations
            iterations -= 1
            if iterations == -1:
                os.kill(os.getpid(), number)
            return original(batches, count)

        monkeypatch.setattr(loop, "islice", interrupting)

    yield arrange


@pytest.mark.parametrize(
    ("after", "number", "changes"),
    [
        (0, signal.SIGINT, {}),
        (2, signal.SIGTERM, {}),
        (3, signal.SIGUSR1, SCHEDULES),
        (4, signal.SIGINT, {}),
    ],
)
def test_stopped_run_goes_on_bit_for_bit(
    images: Path,
    tmp_path: Path,
    interrupted_after: Any,
    capsys: Any,
    after: int,
    number: signal.Signals,
    changes: dict[str, Any],
) -> None:
    assert run(images, tmp_path / "unbroken", **changes) == 0
    interrupted_after(after, number)
    assert run(images, tmp_path / "broken", **changes) == (130 if number == signal.SIGINT else EXIT_RUN_AGAIN)
    assert "saved; run the same command again to go on" in capsys.readouterr().out
    assert run(images, tmp_path / "broken", **changes) == 0
    assert_same_bits(final_tensors(tmp_path / "unbroken"), final_tensors(tmp_path / "broken"))
    assert log_lines(tmp_path / "unbroken") == log_lines(tmp_path / "broken")


def test_finished_run_is_left_as_it_is(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path)
    before = final_tensors(tmp_path), log_lines(tmp_path)
    assert run(images, tmp_path) == 0
    assert_same_bits(before[0], final_tensors(tmp_path))
    assert before[1] == log_lines(tmp_path)


def test_run_leaves_log_curves_pictures_and_checkpoints(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path)
    lines = [json.loads(line) for line in log_lines(tmp_path)]
    assert [(line["kind"], line["iteration"]) for line in lines] == [
        ("images", 0), ("train", 2), ("eval", 3), ("train", 4), ("train", 6), ("eval", 6),
    ]  # fmt: skip
    bound = lines[-1]
    assert bound["negative_elbo_nats_per_dim"] == pytest.approx(
        bound["rate_nats_per_dim"] + bound["distortion_nats_per_dim"]
    )
    assert sum(bound["group_rates_nats_per_dim"]) == pytest.approx(bound["rate_nats_per_dim"])
    assert list((tmp_path / "run" / "images").iterdir()) == [tmp_path / "run" / "images" / "step-00000006.png"]
    assert len(list((tmp_path / "run" / "tensorboard").iterdir())) == 1


def test_snapshots_need_not_fall_on_other_saves(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path, iters_per_save=4, iters_per_ckpt=3, keep_checkpoints=1)
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step-00000003", "step-00000006"]


def test_a_signal_in_the_last_step_leaves_the_last_look_to_the_next_start(
    images: Path, tmp_path: Path, interrupted_after: Any, capsys: Any
) -> None:
    assert run(images, tmp_path / "unbroken") == 0
    interrupted_after(5)
    assert run(images, tmp_path / "broken") == 130
    assert "after step 6 and saved" in capsys.readouterr().out
    assert run(images, tmp_path / "broken") == 0
    assert log_lines(tmp_path / "unbroken") == log_lines(tmp_path / "broken")


def test_a_stopped_fresh_run_says_how_to_go_on(
    images: Path, tmp_path: Path, interrupted_after: Any, capsys: Any
) -> None:
    interrupted_after(0)
    run(images, tmp_path, fresh=True)
    assert "the same command again without --fresh to go on" in capsys.readouterr().out


def test_a_global_batch_left_open_is_fixed_by_the_first_start(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path, global_batch=0)
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["global_batch"] == 2
    with pytest.raises(InputError, match=r"global_batch: 2 → 4"):
        run(images, tmp_path, global_batch=4)


def test_a_folder_that_may_not_be_looked_at_is_named(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("vdvae_lr.training.claimed_folder._check_same_settings", refuse)
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError, match=r"Permission denied.*--save_dir"):
        run(images, tmp_path)


def test_alpha_rises_over_the_run(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path, iters_per_print=1, alpha_T=3.0)
    alphas = [line["alpha"] for line in map(json.loads, log_lines(tmp_path)) if line["kind"] == "train"]
    assert alphas == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0, 2.5])


def test_alpha_goes_to_its_end_and_beta_rises(images: Path, tmp_path: Path) -> None:
    changes = {"alpha_T": 3.0, "alpha_end": 1.0, "alpha_end_iters": 3, "beta": 2.0, "beta_warmup_iters": 4}
    run(images, tmp_path, iters_per_print=1, **changes)
    lines = [line for line in map(json.loads, log_lines(tmp_path)) if line["kind"] == "train"]
    assert [line["alpha"] for line in lines] == pytest.approx([0.0, 1.0, 2.0, 3.0, 7 / 3, 5 / 3])
    assert [line["beta"] for line in lines] == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0, 2.0])


@pytest.mark.parametrize(("changes", "said"), [({}, 1), ({"alpha_T": 0.3}, 0), ({"test_eval": True}, 0)])
def test_a_long_run_with_a_large_alpha_begins_with_a_warning(
    images: Path, tmp_path: Path, capsys: Any, changes: dict[str, Any], said: int
) -> None:
    settings = tiny_settings(
        **{"iters": 10_000, "alpha_T": 1.0} | changes, data_root=str(images), save_dir=str(tmp_path), desc="run"
    )
    with prepared_run(settings, ALONE, None):
        pass
    assert capsys.readouterr().out.count("alpha_T is 1 in a run of 10,000 iterations") == said


def test_other_settings_are_refused_with_the_difference(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path)
    before = log_lines(tmp_path)
    with pytest.raises(InputError, match=r"other settings \(lr: 0\.00015 → 0\.1\).*--fresh"):
        run(images, tmp_path, lr=0.1)
    assert log_lines(tmp_path) == before


def test_a_run_that_saved_nothing_may_begin_with_other_settings(images: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text('{"lr": 7.0}')
    assert run(images, tmp_path) == 0
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["lr"] == tiny_settings().optimisation.lr


def test_a_setting_an_earlier_version_did_not_have_is_its_default(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path)
    record = tmp_path / "run" / "settings.json"
    settings = json.loads(record.read_text())
    del settings["lr_final_share"]
    record.write_text(json.dumps(settings))
    assert run(images, tmp_path) == 0
    record.write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"lr_final_share: 1\.0 → 0\.5"):
        run(images, tmp_path, lr_final_share=0.5)


def test_test_eval_only_evaluates_and_on_the_test_split(images: Path, tmp_path: Path, capsys: Any) -> None:
    run(images, tmp_path)
    before = final_tensors(tmp_path), log_lines(tmp_path)
    assert run(images, tmp_path, test_eval=True) == 0
    assert "step 6 · test, EMA weights" in capsys.readouterr().out
    assert_same_bits(before[0], final_tensors(tmp_path))
    *earlier, last = log_lines(tmp_path)
    assert earlier == before[1]
    assert json.loads(last)["kind"] == "test"
    assert run(images, tmp_path / "new", test_eval=True) == 0
    assert not (tmp_path / "new" / "run" / "checkpoints").exists()


def test_fresh_moves_the_earlier_run_aside(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path)
    before = log_lines(tmp_path)
    for number in (1, 2):
        assert run(images, tmp_path, lr=0.1 * number, fresh=True) == 0
    assert (tmp_path / "run.1" / "log.jsonl").read_text().splitlines() == before
    assert (tmp_path / "run.2").is_dir()
    assert log_lines(tmp_path) != before


def test_a_row_of_skips_ends_with_advice(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "_SKIP_CHECK_ITERATIONS", 2)
    with pytest.raises(InputError, match=r"last 4 updates were skipped .*--skip_threshold"):
        run(images, tmp_path, skip_threshold=1e-9, max_consecutive_skips=3)


def test_fine_tuning_starts_both_copies_from_the_average(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path)
    source = tmp_path / "run" / "checkpoints" / "step-00000006"
    settings = {"pretrained": str(tmp_path / "run"), "lr": 0.0, "wd": 0.0, "iters": 2}
    run(images, tmp_path / "tuned", **settings)
    tuned = tmp_path / "tuned" / "run" / "checkpoints" / "step-00000002"
    average = load_file(source / "ema.safetensors")
    assert_same_bits(average, load_file(tuned / "model.safetensors"))
    for name, tensor in load_file(tuned / "ema.safetensors").items():
        assert tensor.allclose(average[name], rtol=1e-5, atol=1e-7), name


def test_published_file_starts_a_run(images: Path, tmp_path: Path) -> None:
    from vdvae_lr.cli.export import ExportSettings
    from vdvae_lr.cli.export import run as export

    run(images, tmp_path)
    export(ExportSettings(source=str(tmp_path / "run"), target=str(tmp_path / "weights.th"), format="published"))
    settings = {"restore_path": str(tmp_path / "weights.th"), "lr": 0.0, "wd": 0.0, "iters": 2}
    run(images, tmp_path / "tuned", **settings)
    average = load_file(tmp_path / "run" / "checkpoints" / "step-00000006" / "ema.safetensors")
    tuned = tmp_path / "tuned" / "run" / "checkpoints" / "step-00000002"
    assert_same_bits(average, load_file(tuned / "model.safetensors"))


def test_bad_image_is_named_or_skipped_and_counted(images: Path, tmp_path: Path) -> None:
    (images / "010.png").write_text("not an image")
    with pytest.raises(InputError, match=r"010\.png"):
        run(images, tmp_path / "stop")
    assert run(images, tmp_path / "skip", bad_images="skip") == 0
    counts = [line["bad_images"] for line in map(json.loads, log_lines(tmp_path / "skip")) if line["kind"] == "train"]
    assert counts[-1] >= 1
