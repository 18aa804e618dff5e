"""`evaluate` on two real processes finds what one process finds, and one of them writes.

`tests/evaluation/test_sections.py` has all sections, in float64; these are the cheap ones.
"""

from pathlib import Path

import pytest
import torch
import tyro
from launching import launch

from vdvae_lr.cli.evaluate import EvaluateSettings, run
from vdvae_lr.evaluation.document import read_evaluation
from vdvae_lr.hub.weight_folder import write_config, write_weights
from vdvae_lr.model.vae import VDVAE, VAEConfig

TINY = VAEConfig(
    image_size=32,
    image_channels=1,
    enc_blocks="32x1,32d4,8x1,8d8,1x1",
    dec_blocks="1x1,8m1,32m8",
    width=8,
    zdim=2,
    num_mixtures=2,
)
CHEAP = (
    *("--examples", "9", "--mixture_batch", "0", "--mixture_images", "0", "--importance_images", "0"),
    *("--gap_images", "0", "--jacobian_images", "0", "--noise_images", "0"),
    *("--batch", "2", "--images", "2", "--device", "cpu"),
)


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    torch.manual_seed(0)
    write_config(tmp_path, TINY, "fashion_small")
    write_weights(tmp_path / "model.safetensors", VDVAE(TINY).state_dict())
    command = [str(tmp_path), *CHEAP, "--out"]
    run(tyro.cli(EvaluateSettings, args=[*command, str(tmp_path / "one")], use_underscores=True))
    command = ["-m", "vdvae_lr", "evaluate", *command, str(tmp_path / "two")]
    ended = launch("torchrun", tmp_path / "output", command, OMP_NUM_THREADS="1")
    assert [process.code for process in ended] == [0], ended
    assert ended[0].output.count("bound and rates") == 1
    found = [read_evaluation(tmp_path / name) for name in ("one", "two")]
    for one, two in zip(found[0].quantities, found[1].quantities, strict=True):
        assert one.key == two.key
        for ours, theirs in zip((*one.groups, one.total), (*two.groups, two.total), strict=True):
            if ours is not None and theirs is not None:
                assert theirs.value == pytest.approx(ours.value, rel=1e-3, abs=1e-5, nan_ok=True), one.key
                assert theirs.images == ours.images
