"""The script that gives batch normalisation other statistics: which ones it takes, and what it prints."""

import sys
from pathlib import Path

import numpy as np
import pytest
import shallow_runs
import shallow_statistics
import torch
from training_runs import write_images

from vdvae_lr.datasets.sources import ArraySource
from vdvae_lr.hub.pretrained import ShallowVAE
from vdvae_lr.model.shallow.vae import ShallowConfig


def test_new_averages_are_those_of_the_images() -> None:
    torch.manual_seed(0)
    model = ShallowVAE(ShallowConfig(image_size=8, image_channels=1, latents=2, encoder_channels="4,6"))
    images = np.random.default_rng(0).integers(0, 256, (96, 8, 8, 1), dtype=np.uint8)
    source = ArraySource(images, np.arange(96), "images")
    seen: list[torch.Tensor] = []
    first = shallow_statistics.batch_norms(model)[0]
    first.register_forward_pre_hook(lambda _, given: seen.append(given[0].mean((0, 2, 3))))
    shallow_statistics.average_anew(model, source, 64)
    assert len(seen) == 2
    torch.testing.assert_close(first.running_mean, torch.stack(seen).mean(0))
    assert not model.training


def test_one_line_for_each_kind_of_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images = write_images(tmp_path / "images", 200)
    run = shallow_runs.run(tmp_path, images)
    capsys.readouterr()
    words = ["x", str(run), "--dataset", "folder", "--data_root", str(images), "--images", "8"]
    monkeypatch.setattr(sys, "argv", words)
    shallow_statistics.main()
    lines = capsys.readouterr().out.splitlines()
    starts = ["running statistics of training", "statistics of batches of 32 test images", "averages over 8 training"]
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=True)] == [True] * 3
    means = {line.partition("mean ")[2].partition(",")[0] for line in lines}
    assert len(means) == 3  # each is another computation
