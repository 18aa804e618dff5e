"""Importance weights (Burda, Grosse, Salakhutdinov 2016): the likelihood, and the gap from q to the true posterior.

With z ~ q(z|x) and w = p(x, z)/q(z|x): E[w] = p(x), E[log w] is the ELBO, and log p(x) − ELBO = KL(q(z|x)‖p(z|x)). The
log of an average of K weights lies below log p(x) in expectation, and approaches it as K grows. The same holds with
z_<l given: the average of p(x, z_≥l|z_<l)/q(z_≥l|z_<l, x) over draws of z_≥l estimates p(x|z_<l). So by the chain rule

    T_l = E_q(z_<l|x)[log p(x|z_<l) − ELBO(x|z_<l)] = Σ_{m≥l} E_q(z_<m|x)[KL(q(z_m|z_<m, x)‖p(z_m|z_<m, x))]

and T_l − T_{l+1} is what group l adds to the distance from the true posterior (T is 0 past the last group).

Draws are made one after the other: they cost time, not memory.

Shapes: K draws, B images, L latent groups, Z latent channels, R a group's resolution. Log-weights are in nats.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vdvae_lr.evaluation.batches import POSTERIOR_NOISE, ExampleNoise, Examples, levels_for
from vdvae_lr.evaluation.moments import GroupMoments, Moments
from vdvae_lr.evaluation.quantities import Findings, Quantity
from vdvae_lr.evaluation.task import Task
from vdvae_lr.losses.elbo import per_image
from vdvae_lr.model.latent_model import FromPosterior, Given, LatentModel, LatentPass, LatentSource
from vdvae_lr.model.noise import PassNoise, noise_key

DRAW_NOISE = "importance"  # the purpose in noise keys
_NATS = "nats/dim"
_GAP = "posterior gap KL(q(z|x)‖p(z|x)), from below"
_GAUSSIAN_GAP = "posterior gap if log-weights were Gaussian"


def log_mean_weight(log_weights: Tensor) -> Tensor:
    """log 1/K Σ_k w_k of log-weights (K, B): nats, (B,). Below log p(x) in expectation (eq. 8 and Theorem 1 there)."""
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def effective_share(log_weights: Tensor) -> Tensor:
    """Effective sample size (Σ w)²/Σ w² of log-weights (K, B), as a share of K: (B,).

    It lies between 1/K, where one draw has all the weight, and 1.
    """
    normalised = log_weights.softmax(0)
    return 1 / (normalised.square().sum(0) * len(log_weights))


def posterior_gap_nats(log_weights: Tensor) -> Tensor:
    """log 1/K Σ w − 1/K Σ log w of log-weights (K, B): (B,), never negative (Jensen).

    In expectation it is a lower bound on KL(q(z|x)‖p(z|x)).
    """
    return log_mean_weight(log_weights) - log_weights.mean(0)


def half_variance_nats(log_weights: Tensor) -> Tensor:
    """Half the variance of log-weights (K, B) over draws, with n − 1: (B,); NaN for one draw.

    It is KL(q(z|x)‖p(z|x)) to second order in the cumulants of log w. If log w is Gaussian it is exact, because then
    log E[w] = E[log w] + Var[log w]/2. It is not a bound, but its expectation is the same for any K from 2 up.
    """
    if len(log_weights) < 2:
        return torch.full_like(log_weights[0], torch.nan)
    return log_weights.var(0) / 2


def by_group(from_here_on: Sequence[Tensor]) -> Tensor:
    """T_l − T_{l+1} from estimates (B,) of every T_l: (B, L). They sum to the first estimate, the whole distance.

    T_l is estimated from draws of z_≥l that all have the same z_<l. If the estimates are lower bounds, their
    differences are not: a difference may even be negative.
    """
    whole = torch.stack(list(from_here_on), dim=1)
    past = torch.cat([whole[:, 1:], torch.zeros_like(whole[:, :1])], dim=1)
    return whole - past


class ImageWeights:
    """Log-weights of one batch of images, draw by draw.

    Draw k of an image depends on the seed, the image's number in its split, and k. So it is the same in every batch, on
    every process, for every K, and for every group that it starts at. `tick` is called at each draw, for progress.
    """

    def __init__(
        self, model: LatentModel, pixels: Tensor, examples: Examples, seed: int, tick: Callable[[], None] = lambda: None
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
        """Hold the latents that a pass over the images draws with this noise, (B, Z, R, R) for each group."""
        self._held = self._pass([FromPosterior(draw) for draw in noise]).latents

    def draw(self, group: int, number: int) -> Tensor:
        """log p(x, z_≥l|z_<l)/q(z_≥l|z_<l, x) for draw k of z_≥l, with z_<l held: nats, (B,) float64.

        Group 0 draws all latents.
        """
        self._noise.draw_rows([noise_key(DRAW_NOISE, self._seed, int(example), number) for example in self._examples])
        sources: list[LatentSource] = [Given(latent) for latent in self._held[:group]]
        sources += [FromPosterior(draw) for draw in self._noise.posterior[group:]]
        self._tick()
        return log_weights(self._pass(sources), self._target, group)

    def draws(self, group: int, count: int) -> Tensor:
        """The first K draws of z_≥l, made one after the other: (K, B) float64."""
        return torch.stack([self.draw(group, number) for number in range(count)])

    def _pass(self, sources: Sequence[LatentSource]) -> LatentPass:
        return self._model.top_down(sources, len(self._target), self._features)


def log_weights(passed: LatentPass, target: Tensor, first: int = 0) -> Tensor:
    """log p(x|z) + Σ_{l ≥ first} log p(z_l|z_<l) − log q(z_l|z_<l, x) of a pass with posteriors: nats, (B,) float64.

    `target` is the images on the likelihood's scale. Latents are converted to float64, because an error of log w is
    one of log p(x).
    """
    total = per_image(passed.likelihood.log_prob(target).double())
    groups = list(zip(passed.latents, passed.priors, passed.posteriors, strict=True))
    for latent, prior, posterior in groups[first:]:
        latent, prior, posterior = latent.double(), prior.map(Tensor.double), posterior.map(Tensor.double)
        total = total + per_image(prior.log_prob(latent) - posterior.log_prob(latent))
    return total


@torch.inference_mode()
def measure_importance(task: Task) -> Findings:
    """The importance-weighted bound, and how far q(z|x) is from the true posterior, in total and by group.

    Quantities: `importance_bound` (and `_bits`), `single_draw_bound`, `posterior_gap`, with two draws or more
    `posterior_gap_gaussian`, and `effective_sample_size`. The last three have groups from `gap_images`; their total is
    from `importance_images`, or from `gap_images` if there are none.
    """
    draws = task.settings.importance_draws
    whole = _whole(task) if task.settings.importance_images else []
    by_part = _by_group(task) if task.settings.gap_images else []
    parts = {quantity.key: quantity for quantity in by_part}
    for number, quantity in enumerate(whole):
        if part := parts.get(quantity.key):
            whole[number] = replace(quantity, groups=part.groups, resolutions=part.resolutions)
    found = [each for each in whole or by_part if draws > 1 or each.key != "posterior_gap_gaussian"]
    shares = [each.total.value for each in found if each.key == "effective_sample_size" and each.total is not None]
    notes = [
        f"Importance weights: {draws} draws an image are worth {share / 100 * draws:.1f}. log p(x) and the posterior "
        "gap are estimated from below, and the number of draws needed grows exponentially with the gap. By group the "
        "gap is a difference of two such estimates, which bounds nothing."
        for share in shares
    ]
    return Findings(found, notes=notes)


def _whole(task: Task) -> list[Quantity]:
    """What the weights of all latents together say."""
    model, measuring = task.model, task.measuring
    draws, images = task.settings.importance_draws, task.settings.importance_images
    moments = Moments((5,), model.device)
    with measuring.counting("importance weights", draws * len(measuring.shards(images))) as tick:
        for batch in measuring.read(images):
            weights = ImageWeights(model, batch.pixels, batch.indices, measuring.seed, tick)
            found = weights.draws(0, draws)
            bounds = [-log_mean_weight(found), -found.mean(0)]
            gaps = [posterior_gap_nats(found), half_variance_nats(found)]
            moments.add(torch.stack([*bounds, *gaps, effective_share(found)], dim=1))
    moments.all_reduce_(measuring.world)
    bound, single, gap, gaussian, _ = moments.measurements(1 / model.dimensions)
    title = f"importance-weighted bound, K = {draws}"
    return [
        Quantity("importance_bound", title, _NATS, bound),
        Quantity("importance_bound_bits", title, "bits/dim", bound.times(1 / math.log(2))),
        Quantity("single_draw_bound", "bound of the same draws, each by itself", _NATS, single),
        Quantity("posterior_gap", _GAP, _NATS, gap),
        Quantity("posterior_gap_gaussian", _GAUSSIAN_GAP, _NATS, gaussian),
        Quantity("effective_sample_size", _share_title(draws), "%", moments.measurements(100)[4]),
    ]


def _by_group(task: Task) -> list[Quantity]:
    """The gap by group, and the effective sample size of the weights behind it."""
    model, measuring = task.model, task.measuring
    draws, images = task.settings.importance_draws, task.settings.gap_images
    groups = range(len(model.resolutions))
    gaps, gaussian = (GroupMoments(model.resolutions, model.device) for _ in range(2))
    shares = Moments((len(groups),), model.device)
    held = ExampleNoise(model, POSTERIOR_NOISE, measuring.seed)
    steps = draws * len(groups) * len(measuring.shards(images))
    with measuring.counting("posterior gap by group", steps) as tick:
        for batch in measuring.read(images):
            weights = ImageWeights(model, batch.pixels, batch.indices, measuring.seed, tick)
            weights.hold(held.draw(batch.indices).posterior)
            found = [weights.draws(group, draws) for group in groups]
            gaps.add(by_group([posterior_gap_nats(each) for each in found]))
            gaussian.add(by_group([half_variance_nats(each) for each in found]))
            shares.add(torch.stack([effective_share(each) for each in found], dim=1))
    for moments in (gaps, gaussian, shares):
        moments.all_reduce_(measuring.world)
    share = tuple(shares.measurements(100))
    per_dim = 1 / model.dimensions
    return [
        gaps.quantity("posterior_gap", _GAP, _NATS, per_dim),
        gaussian.quantity("posterior_gap_gaussian", _GAUSSIAN_GAP, _NATS, per_dim),
        Quantity("effective_sample_size", _share_title(draws), "%", share[0], share),
    ]


def _share_title(draws: int) -> str:
    return f"effective sample size, share of K = {draws}"
