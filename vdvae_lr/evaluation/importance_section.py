"""The likelihood by importance weights, and how far the approximate posterior is from the true one: of one LatentModel.

Draws are made one after the other, so that many cost time and no memory. Shapes: K draws, B images, L latent groups, Z
latent channels, R a group's resolution.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vdvae_lr.evaluation.batches import ExampleNoise, Examples, levels_for
from vdvae_lr.evaluation.bound import POSTERIOR_NOISE
from vdvae_lr.evaluation.importance import (
    by_group,
    collect_by_group,
    collect_log_weights,
    effective_share,
    half_variance_nats,
    log_mean_weight,
    posterior_gap_nats,
)
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.moments import Moments
from vdvae_lr.evaluation.quantities import GroupMoments, Quantity, measurements
from vdvae_lr.losses.elbo import per_image
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import FromPosterior, Given, LatentModel, LatentPass, LatentSource
from vdvae_lr.model.noise import PassNoise, noise_key

DRAW_NOISE = "importance"  # the purpose in the noise key
_NATS = "nats/dim"
_GAP = "posterior gap KL(q(z|x)‖p(z|x)), from below"
_GAUSSIAN_GAP = "posterior gap if log-weights were Gaussian"


class ImageWeights:
    """Log-weights of one batch of images, draw by draw.

    Draw k of an image is the same in every batch, on every process, for every K, and for every group that it starts at.

    Args:
        model: on its device.
        pixels: (B, C, H, W) uint8.
        examples: the images' numbers in their split.
        seed: of the draws, with the image's number and the draw's.
        tick: called at each draw, for progress.
    """

    def __init__(
        self, model: LatentModel, pixels: Tensor, examples: Examples, seed: int, tick: Callable[[], None] | None = None
    ) -> None:
        levels = levels_for(model, pixels)
        self._model = model
        self._examples = examples
        self._seed = seed
        self._tick = tick
        self._features = model.encode(levels)
        self._target = model.pixel_scale.target_from_levels(levels)
        self._noise = PassNoise(model, len(pixels), model.device, image=False)
        self._held: tuple[Tensor, ...] = ()

    def hold(self, noise: Sequence[Tensor]) -> None:
        """The latents that `draw_below` holds: those that a pass over the images draws with this noise, (B, Z, R, R)
        each.
        """
        self._held = self._pass([FromPosterior(draw) for draw in noise]).latents

    def draw(self, number: int) -> Tensor:
        """log p(x, z)/q(z|x) for draw k of all latents: nats, (B,) float64."""
        return self.draw_below(0, number)

    def draw_below(self, group: int, number: int) -> Tensor:
        """log p(x, z_≥l|z_<l)/q(z_≥l|z_<l, x) for draw k of z_≥l, with z_<l held: nats, (B,) float64."""
        keys = [noise_key(DRAW_NOISE, self._seed, int(example), number) for example in self._examples]
        self._noise.draw_rows(keys)
        sources: list[LatentSource] = [Given(latent) for latent in self._held[:group]]
        sources += [FromPosterior(draw) for draw in self._noise.posterior[group:]]
        if self._tick is not None:
            self._tick()
        return log_weights(self._pass(sources), self._target, group)

    def _pass(self, sources: Sequence[LatentSource]) -> LatentPass:
        return self._model.top_down(sources, len(self._target), self._features)


def log_weights(passed: LatentPass, target: Tensor, first: int = 0) -> Tensor:
    """log p(x|z) + Σ_{l ≥ first} log p(z_l|z_<l) − log q(z_l|z_<l, x) of a pass with posteriors: nats, (B,) float64.

    `target` is the images on the likelihood's scale. Latents enter in float64: an error of log w is one of p(x).
    """
    total = per_image(passed.likelihood.log_prob(target).double())
    groups = zip(passed.latents, passed.priors, passed.posteriors, strict=True)
    for latent, prior, posterior in list(groups)[first:]:
        ratio = _in_double(prior).log_prob(latent.double()) - _in_double(posterior).log_prob(latent.double())
        total = total + per_image(ratio)
    return total


def _in_double(distribution: DiagonalGaussian) -> DiagonalGaussian:
    return DiagonalGaussian(distribution.mean.double(), distribution.log_scale.double())


@torch.inference_mode()
def measure_importance(
    model: LatentModel, measuring: Measuring, *, images: int, draws: int, gap_images: int
) -> list[Quantity]:
    """The importance-weighted bound, and the distance of approximate from true posterior, in all and by group.

    Args:
        model: on its device.
        measuring: images, seed and processes; all processes must call this.
        images: the first so many, for what concerns z as a whole: K passes each; 0: none.
        draws: K.
        gap_images: the first so many, for the gap by group: K·L passes each; 0: none.

    Returns:
        `importance_bound` (and `_bits`), `single_draw_bound`, `posterior_gap`, with two draws or more
        `posterior_gap_gaussian`, and `effective_sample_size`. The last three have groups from `gap_images`, and their
        total from `images`, or from `gap_images` where `images` is 0.

    Raises:
        InputError: fewer than one draw.
    """
    whole = _whole(model, measuring, images, draws) if images > 0 else []
    by_part = _by_group(model, measuring, gap_images, draws) if gap_images > 0 else []
    parts = {quantity.key: quantity for quantity in by_part}
    found = [_with_parts(quantity, parts.get(quantity.key)) for quantity in whole] or by_part
    return [quantity for quantity in found if draws > 1 or quantity.key != "posterior_gap_gaussian"]


def importance_notes(quantities: Sequence[Quantity], draws: int) -> list[str]:
    """What a reader of `measure_importance`'s result must know."""
    shares = [quantity.total for quantity in quantities if quantity.key == "effective_sample_size"]
    if not shares or shares[0] is None:
        return []
    worth = shares[0].value / 100 * draws
    return [
        f"Importance weights: {draws} draws an image are worth {worth:.1f}. log p(x) and the posterior gap are "
        "estimated from below, and the draws it takes grow exponentially with the gap; by group the gap is a "
        "difference of two such estimates, a bound on nothing."
    ]


def _with_parts(quantity: Quantity, parts: Quantity | None) -> Quantity:
    return quantity if parts is None else replace(quantity, groups=parts.groups, resolutions=parts.resolutions)


def _whole(model: LatentModel, measuring: Measuring, images: int, draws: int) -> list[Quantity]:
    """What the weights of all latents together say."""
    moments = Moments((5,), model.device)
    with measuring.counting("importance weights", draws * measuring.batch_count(images)) as tick:
        for batch in measuring.read(images):
            weights = ImageWeights(model, batch.pixels, batch.indices, measuring.seed, tick)
            found = collect_log_weights(weights.draw, draws)
            bounds = [-log_mean_weight(found), -found.mean(0)]
            gaps = [posterior_gap_nats(found), half_variance_nats(found)]
            moments.add(torch.stack([*bounds, *gaps, effective_share(found)], dim=1))
    moments.all_reduce_(measuring.world)
    bound, single, gap, gaussian = measurements(moments, 1 / model.dimensions)[:4]
    bits = bound.times(1 / math.log(2))
    title = f"importance-weighted bound, K = {draws}"
    return [
        Quantity("importance_bound", title, _NATS, bound),
        Quantity("importance_bound_bits", title, "bits/dim", bits),
        Quantity("single_draw_bound", "bound of the same draws, each by itself", _NATS, single),
        Quantity("posterior_gap", _GAP, _NATS, gap),
        Quantity("posterior_gap_gaussian", _GAUSSIAN_GAP, _NATS, gaussian),
        Quantity("effective_sample_size", _share_title(draws), "%", measurements(moments, 100)[4]),
    ]


def _by_group(model: LatentModel, measuring: Measuring, images: int, draws: int) -> list[Quantity]:
    """The gap by group, and the effective sample size of the weights behind it."""
    resolutions, device = model.resolutions, model.device
    gaps, gaussian = GroupMoments(resolutions, device), GroupMoments(resolutions, device)
    shares = Moments((len(resolutions),), device)
    held = ExampleNoise(model, POSTERIOR_NOISE, measuring.seed)
    steps = draws * len(resolutions) * measuring.batch_count(images)
    with measuring.counting("posterior gap by group", steps) as tick:
        for batch in measuring.read(images):
            weights = ImageWeights(model, batch.pixels, batch.indices, measuring.seed, tick)
            weights.hold(held.draw(batch.indices).posterior)
            found = collect_by_group(weights.draw_below, len(resolutions), draws)
            gaps.add(by_group([posterior_gap_nats(each) for each in found]))
            gaussian.add(by_group([half_variance_nats(each) for each in found]))
            shares.add(torch.stack([effective_share(each) for each in found], dim=1))
    for moments in (gaps, gaussian, shares):
        moments.all_reduce_(measuring.world)
    share = tuple(measurements(shares, 100))
    per_dim = 1 / model.dimensions
    return [
        gaps.quantity("posterior_gap", _GAP, _NATS, per_dim),
        gaussian.quantity("posterior_gap_gaussian", _GAUSSIAN_GAP, _NATS, per_dim),
        Quantity("effective_sample_size", _share_title(draws), "%", share[0], share),
    ]


def _share_title(draws: int) -> str:
    return f"effective sample size, share of K = {draws}"
