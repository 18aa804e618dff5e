"""Lagging VAE: when the encoder's turn ends, when the schedule is over, and that an update moves one part alone."""

import json
import math
from pathlib import Path

import pytest
import torch
from shallow_runs import broken_run, run, training
from training_runs import batches_of, tiny_pixels, tiny_training, write_images

from vdvae_lr.errors import InputError
from vdvae_lr.files.run_folder import complete_checkpoints
from vdvae_lr.hub.pretrained import ShallowVAE
from vdvae_lr.training.lagging import DECODER, ENCODER, EncoderFirst, encoder_turn
from vdvae_lr.training.optim import OptimisationSettings
from vdvae_lr.training.step import TrainingStep

TWO_FAILURES = OptimisationSettings(encoder_steps=25, encoder_patience=2)


@pytest.mark.parametrize(
    ("losses", "updates"),
    [
        ([5.0] * 10 + [4.0] * 10 + [3.0] * 10, 25),  # it falls: up to the limit
        ([5.0] * 30, 25),  # as published, the turn ends only when the loss rises
        ([5.0] * 10 + [5.1] * 10 + [1.0] * 10, 20),
        ([5.0] * 10 + [4.0] * 9 + [15.0] + [1.0] * 10, 20),
        ([math.nan] * 30, 10),
    ],
)
def test_the_encoders_turn_ends_when_its_loss_rises_or_at_the_limit(losses: list[float], updates: int) -> None:
    made: list[int] = []

    def update(number: int) -> float:
        made.append(number)
        return losses[number]

    assert encoder_turn(update, 25) == updates
    assert made == list(range(updates))


def test_the_schedule_is_over_when_information_has_failed_to_rise() -> None:
    schedule = EncoderFirst()
    seen = []
    for information in (0.1, 0.2, 0.15, 0.3, 0.25, 0.4):
        schedule = schedule.after_measurement(information, TWO_FAILURES)
        seen.append(schedule.over)
    assert seen == [False, False, False, False, True, True]


def parts(step: TrainingStep) -> dict[str, list[torch.Tensor]]:
    """Weights and moments of the encoder and of the decoder."""
    state = step.optimiser.flat_state()
    split = step.optimiser.weights.parts[0].numel()
    end = step.optimiser.weights.values.numel()
    buffers = [buffer[:end].clone() for name, buffer in state.items() if name != "average"]
    return {"encoder": [buffer[:split] for buffer in buffers], "decoder": [buffer[split:] for buffer in buffers]}


def test_an_update_of_one_part_leaves_the_other_alone() -> None:
    step = training(encoder_steps=5)
    batches = batches_of(tiny_pixels(8), 4)
    step(0, 0.1, batches)
    for moving, moves, stays in ((ENCODER, "encoder", "decoder"), (DECODER, "decoder", "encoder")):
        before = parts(step)
        step(1, 0.1, batches, moving)
        after = parts(step)
        assert all(torch.equal(*pair) for pair in zip(before[stays], after[stays], strict=True))
        assert not any(torch.equal(*pair) for pair in zip(before[moves], after[moves], strict=True))
    assert step.optimiser.update_count().tolist() == [2.0, 2.0]


def test_updates_of_both_parts_are_those_of_a_run_without_the_schedule() -> None:
    plain, parted = training(), training(encoder_steps=5)
    for iteration in range(3):
        for step in (plain, parted):
            step(iteration, 0.1, batches_of(tiny_pixels(8), 4))
    found, expected = (step.optimiser.weights.named(step.optimiser.weights.state) for step in (parted, plain))
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name])


def test_a_model_without_an_encoder_of_its_own_is_refused() -> None:
    with pytest.raises(InputError, match="VDVAE names no weights of an encoder alone; leave --encoder_steps out"):
        tiny_training(encoder_steps=3)


def test_an_unknown_name_of_the_encoders_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShallowVAE, "encoder_weights", lambda self: ["encoder.nothing"])
    with pytest.raises(InputError, match=r"ShallowVAE.encoder_weights names 'encoder.nothing', which is no parameter"):
        training(encoder_steps=3)


def test_the_order_of_the_encoders_weights_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    named = training(encoder_steps=3)
    names = named.model.encoder_weights()
    monkeypatch.setattr(ShallowVAE, "encoder_weights", lambda self: list(reversed(names)))
    reversed_names = training(encoder_steps=3)
    for step in (named, reversed_names):
        step(0, 0.1, batches_of(tiny_pixels(8), 4))
    assert torch.equal(named.optimiser.weights.state, reversed_names.optimiser.weights.state)


def test_a_run_that_goes_on_is_equal_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = write_images(tmp_path / "images", 40)
    changes = {"encoder_steps": 3, "encoder_patience": 1, "iters": 9, "iters_per_save": 4, "global_batch": 16}
    whole = run(tmp_path / "whole", images, **changes)
    broken = broken_run(tmp_path / "broken", images, monkeypatch, **changes)
    ends = [complete_checkpoints(folder / "checkpoints")[-1] for folder in (whole, broken)]
    for name in ("model.safetensors", "ema.safetensors", "optimiser.safetensors"):
        assert (ends[0] / name).read_bytes() == (ends[1] / name).read_bytes()
    states = [json.loads((end / "state.json").read_text())["loop"]["encoder_first"] for end in ends]
    assert states[0] == states[1]
    assert states[0]["encoder_updates"] >= 12  # three in each of the first four iterations
    logs = [
        [line for line in (folder / "log.jsonl").read_text().splitlines() if "encoder_first" in line]
        for folder in (whole, broken)
    ]
    assert logs[0] == logs[1] != []


def test_the_measurements_come_as_often_as_asked(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 40)
    changes = {"encoder_steps": 1, "encoder_patience": 9, "iters": 6, "global_batch": 16}
    for every, expected in ((0, [2, 4, 6]), (3, [3, 6])):  # 0: after an epoch, 40 // 16 iterations
        folder = run(tmp_path / f"every{every}", images, encoder_check_iters=every, **changes)
        lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
        assert [line["iteration"] for line in lines if line["kind"] == "encoder_first"] == expected
