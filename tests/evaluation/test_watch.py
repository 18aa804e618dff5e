"""What a run watches: the direct formulas on the same images, whatever the batches and processes."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from latent_groups import groups_of
from torch import Tensor

from vdvae_lr.datasets.loader import Batch
from vdvae_lr.datasets.sampler import evaluation_shards
from vdvae_lr.datasets.sources import ArraySource
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.information import measure_information_from_samples
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.task import SectionSettings, Task
from vdvae_lr.evaluation.watch import WatchedLatents, watch_latents
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.losses.objective import ObjectiveSettings, reconstruct_latents
from vdvae_lr.model.noise import PassNoise, noise_key
from vdvae_lr.processes.world import World

BatchMaker = Callable[..., list[Batch]]
SEED = 6


def variances(model: VDVAE, pixels: Tensor) -> list[Tensor]:
    """Of every posterior mean over the images along the path of means, from all of them at once: (Z, R, R) a group."""
    silence = [torch.zeros(len(pixels), *shape, dtype=torch.float64) for shape in model.latent_shapes]
    groups = groups_of(model.infer(pixels.double(), silence))
    return [group.posterior.mean.var(0) for group in groups]


def flat(watched: WatchedLatents) -> list[object]:
    numbers = [
        number
        for found in (watched.recovered_information, watched.information_from_samples)
        for number in (round(found.value, 12), round(found.standard_error, 12), found.images)
    ]
    return [*numbers, watched.active_latents, watched.active_channels]


def test_recovered_information_is_minus_the_lr_loss(
    small_model: VDVAE, pixels: Tensor, batches_of: BatchMaker, world: World
) -> None:
    noise = PassNoise(small_model, 7, world.device)
    noise.draw_rows([noise_key("evaluate", SEED, index) for index in range(7)])
    passed = small_model.infer(pixels.double(), noise.posterior, keep_contexts=True)
    loss = reconstruct_latents(ObjectiveSettings(), small_model, passed, noise.image)
    watched = watch_latents(small_model, batches_of([[0, 1, 2, 3], [4, 5, 6]]), seed=SEED, world=world)
    found = watched.recovered_information
    assert found.value == pytest.approx(-loss.mean().item() / 192, rel=1e-9)
    assert found.standard_error == pytest.approx(loss.std().item() / math.sqrt(7) / 192, rel=1e-9)
    assert watched.images == 7


def test_eq_5_is_that_of_an_evaluation_on_as_many_samples(
    small_model: VDVAE, pixels: Tensor, batches_of: BatchMaker, world: World
) -> None:
    source = ArraySource(pixels.permute(0, 2, 3, 1).contiguous().numpy(), np.arange(7), "images")
    measuring = Measuring(source, 7, 3, SEED, world, lambda items, total, what: items)
    task = Task(small_model, None, measuring, SectionSettings())
    (known,) = measure_information_from_samples(task).quantities
    found = watch_latents(small_model, batches_of([range(7)]), seed=SEED, world=world).information_from_samples
    assert known.total is not None
    assert (found.value, found.standard_error) == pytest.approx((known.total.value, known.total.standard_error))


def test_active_units_are_those_whose_mean_varies(
    small_model: VDVAE, pixels: Tensor, batches_of: BatchMaker, world: World
) -> None:
    with torch.no_grad():  # the small model's means hardly vary; now about half of them do
        for block, factor in zip(small_model.decoder.blocks, (200, 20, 60, 20, 14), strict=True):
            block.posterior.expand.weight.mul_(factor)
    watched = watch_latents(small_model, batches_of([range(7)]), seed=SEED, world=world)
    direct = variances(small_model, pixels)
    assert watched.active_latents.active == tuple(int((own >= 0.01).sum()) for own in direct)
    assert watched.active_channels.active == tuple(int((own.mean((1, 2)) >= 0.01).sum()) for own in direct)
    shares = [active / units for active, units in zip(*vars(watched.active_latents).values(), strict=True)]
    assert len(set(shares)) > 2
    assert watched.active_channels.units == (3, 3, 3, 3, 3)


@pytest.mark.parametrize(("size", "n_batch"), [(1, 2), (2, 2), (3, 4)])
def test_batches_and_processes_do_not_matter(
    small_model: VDVAE,
    batches_of: BatchMaker,
    world: World,
    in_worlds: Callable[..., list[WatchedLatents]],
    size: int,
    n_batch: int,
) -> None:
    def of_rank(one: World) -> WatchedLatents:
        shards = evaluation_shards(7, n_batch, one.rank, one.size)
        return watch_latents(small_model, batches_of(shards), seed=SEED, world=one)

    alone = watch_latents(small_model, batches_of([range(7)]), seed=SEED, world=world)
    for found in in_worlds(size, of_rank):
        assert flat(found) == flat(alone)


def test_one_image_has_no_variance_and_none_is_refused(
    small_model: VDVAE, batches_of: BatchMaker, world: World
) -> None:
    watched = watch_latents(small_model, batches_of([[0]]), seed=SEED, world=world)
    assert (watched.active_latents, watched.active_channels, watched.images) == (None, None, 1)
    assert math.isfinite(watched.recovered_information.value)
    assert watched.recovered_information.standard_error is None
    assert watched.information_from_samples.standard_error is None
    with pytest.raises(InputError, match="no images"):
        watch_latents(small_model, [], seed=SEED, world=world)
