"""How much images say about the latents that made them: information, LR in every form, and R², by latent group.

Information is an average of log q(z|x) − log p(z) = Σ_l log q(z_l|z_<l, x) − log p(z_l|z_<l), in nats. Whether it is a
bound depends on where z and x come from, so the two measurements have two names:

- information from samples: z ~ p(z), and x ~ p(x|z) is rounded to pixel levels. Then E[log q(z|x) − log p(z)] ≤ I(Z;X).
  This is the paper's eq. 5 with H(Z) and L_LR taken together, sample by sample.
- recovered information: z ~ q(z|x) of data, and x is its decoded image. It is minus the LR loss, and a bound on
  nothing. Each decoded image is re-encoded given the original z_<l, from the states of the posterior pass.

R² is the share of the latents' variation that re-encoding explains: 1 − Σ‖μ' − z‖² / baseline. The baseline is
Σ‖z − z̄‖² over the data, or Σ‖z − μ_p‖² from the prior's means.

Shapes: B images, L latent groups, C channels, H W resolution.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vdvae_lr.evaluation.batches import ExampleNoise, Seen, Statistic
from vdvae_lr.evaluation.moments import GroupMoments, Moments, PerExample
from vdvae_lr.evaluation.quantities import Findings, Measurement, Quantity
from vdvae_lr.evaluation.task import Task
from vdvae_lr.losses.latent_reconstruction import FORMS, FormName, group_latent_reconstruction
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import LatentModel, LatentPass
from vdvae_lr.model.noise import PassNoise

INFORMATION_NOISE = "information"  # the purpose in noise keys: every measurement of eq. 5 makes the same samples
_IMAGES = {
    "mean_image": "mean images",
    "sampled_image": "sampled images",
    "rounded_mean_image": "mean images rounded to the data's levels",
}
_UNITS: Mapping[FormName, str] = {
    "information": "nats/dim",
    "nll": "nats/dim",
    "standardised": "squares/dim",
    "raw": "squares/dim",
}
_SQUARES = {"sampled_image": "lr_raw", "mean_image": "lr_raw_mean_image"}
"""By the images that R² is stated for: the key of ‖μ' − z‖²."""
_INNOVATION = "innovation"  # ‖z − μ_p‖²
_ROUNDING = 1e-24
"""Up to this share of z̄² a variance is rounding of z̄ in float64. Float32 latents that differ vary by 1e-15 of it."""


def group_information_nats(passed: LatentPass, reencoded: Sequence[DiagonalGaussian]) -> Tensor:
    """log q(z_l|z_<l, x̂) − log p(z_l|z_<l) of a pass's latents, from their posteriors given x̂: nats, (B, L)."""
    return -group_latent_reconstruction(passed.latents, reencoded, passed.priors, "information")


def information_nats(model: LatentModel, passed: LatentPass, image: Tensor) -> Tensor:
    """log q(z|x̂) − log p(z) of a pass with kept contexts: nats, (B,); x̂ (B, C, H, W) is on the target scale."""
    return group_information_nats(passed, model.reencode(passed, image)).sum(1)


LatentReader = Callable[[LatentPass, Tensor], Sequence[DiagonalGaussian]]
"""q(z_l | z_<l, x) of every group, for a pass with kept contexts and images x (B, C, H, W) on the target scale."""


def other_reader(other: LatentModel) -> LatentReader:
    """The encoder of another model, which makes the contexts of the same latents by its own top-down pass."""
    return lambda passed, image: other.reencode(other.decode(passed.latents, keep_contexts=True), image)


@torch.no_grad()
def sampled_pairs(model: LatentModel, noise: PassNoise) -> tuple[LatentPass, Tensor]:
    """A pass from the prior with kept contexts, and a draw x ~ p(x|z) for each of its latents, rounded to the data's
    levels: (B, C, H, W). `noise` has the prior's and the image's draws for B samples.
    """
    assert noise.prior is not None  # the caller asks for it
    passed = model.generate(len(noise.prior[0]), noise.prior, keep_contexts=True)
    return passed, model.pixel_scale.round_target(passed.decoded("sample", noise.image))


def measure_information_from_samples(task: Task) -> Findings:
    """A lower bound on I(Z;X) under the model by latent group, from as many of its own samples as there are images.

    This is the paper's eq. 5. With a model before fine-tuning, a second quantity says how that model's encoder reads
    the same samples.
    """
    readers: dict[str, tuple[str, LatentReader]] = {
        "": ("information in the model's own samples (eq. 5)", task.model.reencode)
    }
    if task.before is not None:
        readers["_before"] = ("eq. 5, read by the encoder before fine-tuning", other_reader(task.before))
    return measure_readers(task, readers, "information from samples")


@torch.inference_mode()
def measure_readers(task: Task, readers: Mapping[str, tuple[str, LatentReader]], what: str) -> Findings:
    """Eq. 5 with each reader as q, all on the same samples, of which each counts as an image. Readers have a title, by
    the ending of their key.

    `what` names the work in the progress.
    """
    model, measuring = task.model, task.measuring
    noise = ExampleNoise(model, INFORMATION_NOISE, measuring.seed, prior=True, image=True)
    moments = {ending: GroupMoments(model.resolutions, model.device) for ending in readers}
    kept = PerExample(measuring.count(), len(readers), model.device)
    for numbers in measuring.samples(what):
        passed, image = sampled_pairs(model, noise.draw(numbers))
        read = [group_information_nats(passed, reader(passed, image)).double() for _, reader in readers.values()]
        for ending, values in zip(readers, read, strict=True):
            moments[ending].add(values)
        kept.add(numbers, torch.stack([values.sum(1) for values in read], dim=1))
    kept.all_reduce_(measuring.world)
    quantities = []
    for column, (ending, (title, _)) in enumerate(readers.items()):
        moments[ending].all_reduce_(measuring.world)
        per_dim = 1 / model.dimensions
        found = moments[ending].quantity(f"information_from_samples{ending}", title, "nats/dim", per_dim)
        quantities.append(replace(found, by_image=kept.column(column, per_dim)))
    return Findings(quantities)


def recovery_values(
    model: LatentModel, passed: LatentPass, images: Mapping[str, Tensor], before: LatentModel | None
) -> dict[str, Tensor]:
    """All that adds up over latent groups, by key: nats or squares per image, (B, L) each."""
    reencoded = {name: model.reencode(passed, image) for name, image in images.items()}
    values = {f"recovered_{name}": group_information_nats(passed, read) for name, read in reencoded.items()}
    if before is not None:
        given = before.decode(passed.latents, keep_contexts=True)
        for name, image in images.items():
            values[f"recovered_{name}_before"] = group_information_nats(passed, before.reencode(given, image))
    values |= {f"lr_{form}": _loss(passed, reencoded["sampled_image"], form) for form in FORMS}
    values["lr_raw_mean_image"] = _loss(passed, reencoded["mean_image"], "raw")
    values[_INNOVATION] = _loss(passed, passed.priors, "raw")
    for squares in _SQUARES.values():
        values[_difference(squares)] = values[_INNOVATION].double() - values[squares].double()
    return values


def _loss(passed: LatentPass, posteriors: Sequence[DiagonalGaussian], form: FormName) -> Tensor:
    return group_latent_reconstruction(passed.latents, posteriors, passed.priors, form)


def _difference(squares: str) -> str:
    return f"{_INNOVATION} less {squares}"


def _described(before: bool) -> dict[str, tuple[str, str]]:
    """Title and unit of every reported value that adds up over groups, by key."""
    encoders = {"": ""} | ({"_before": ", by the encoder before fine-tuning"} if before else {})
    described = {
        f"recovered_{name}{ending}": (f"recovered from {words}{by}", "nats/dim")
        for ending, by in encoders.items()
        for name, words in _IMAGES.items()
    }
    described |= {f"lr_{form}": (f"LR loss, {form}, sampled image", unit) for form, unit in _UNITS.items()}
    return described | {"lr_raw_mean_image": ("LR loss, raw, mean image", _UNITS["raw"])}


class RecoveryReader:
    """Recovered information, LR losses and R². It needs passes with kept contexts and noise for sampled images.

    The encoder of `before`, a model of the same architecture, reads the same images. None leaves that out.
    """

    def __init__(self, model: LatentModel, before: LatentModel | None = None) -> None:
        self._model = model
        self._before = before
        self._described = _described(before is not None)
        keys = [*self._described, _INNOVATION, *map(_difference, _SQUARES.values())]
        self._moments = {key: GroupMoments(model.resolutions, model.device) for key in keys}
        self._latents = [Moments(shape, model.device) for shape in model.latent_shapes]
        self.statistics: Sequence[Statistic] = [*self._moments.values(), *self._latents]

    def add(self, seen: Seen) -> None:
        """Take in one batch."""
        passed, scale = seen.passed, self._model.pixel_scale
        mean, sampled = passed.decoded("mean"), passed.decoded("sample", seen.image_noise)
        images = dict(zip(_IMAGES, (mean, sampled, scale.round_target(mean)), strict=True))
        for moments, latent in zip(self._latents, passed.latents, strict=True):
            moments.add(latent)
        for key, values in recovery_values(self._model, passed, images, self._before).items():
            self._moments[key].add(values)

    def findings(self) -> Findings:
        """The quantities that add up over groups, then R²."""
        per_dim = 1 / self._model.dimensions
        found = [
            self._moments[key].quantity(key, title, unit, per_dim) for key, (title, unit) in self._described.items()
        ]
        innovation, variation = self._moments[_INNOVATION].quantity(), self._variation()
        for image, squares in _SQUARES.items():
            error, difference = self._moments[squares].quantity(), self._moments[_difference(squares)].quantity()
            words = _IMAGES[image]
            found += [
                _explained_share(f"latent_r2_{image}", f"latent R², {words}", error, variation),
                _explained_share(f"innovation_r2_{image}", f"innovation R², {words}", error, innovation, difference),
            ]
        return Findings(found)

    def _variation(self) -> Quantity:
        """The average of ‖z_l − z̄_l‖² over images, where z̄_l is each latent's mean; NaN below two images."""
        images = self._latents[0].count
        to_average = (images - 1) / max(images, 1)  # the variance has n − 1
        sums = [_variance_sum(moments) * to_average for moments in self._latents]

        def measured(groups: Sequence[int]) -> Measurement:
            return Measurement(sum(sums[group] for group in groups), None, images)

        return Quantity.by_level("", "", "", self._model.resolutions, measured)


def _variance_sum(moments: Moments) -> float:
    """The variance summed over a group's latents. If it is only rounding of their means, it is exactly 0."""
    variance = moments.variance.sum().item()
    return 0.0 if variance <= _ROUNDING * moments.mean.square().sum().item() else variance


def _explained_share(
    key: str, title: str, error: Quantity, baseline: Quantity, difference: Quantity | None = None
) -> Quantity:
    """1 − error/baseline at every level; NaN where the baseline is 0, as for a group whose latents never move.

    All are averages over the same images, `difference` that of baseline − error. It gives their covariance, and with it
    the standard error of the ratio (delta method). Without it there is no standard error.
    """
    errors = _levels(error)
    differences = [None] * len(errors) if difference is None else _levels(difference)
    total, *parts = [_share(*level) for level in zip(errors, _levels(baseline), differences, strict=True)]
    count = len(error.groups)
    by_resolution = dict(zip(error.resolutions, parts[count:], strict=True))
    return Quantity(key, title, "", total, tuple(parts[:count]), by_resolution)


def _levels(quantity: Quantity) -> list[Measurement]:
    """In total, by group, by resolution."""
    assert quantity.total is not None  # what adds up over groups has one
    return [quantity.total, *quantity.groups, *quantity.resolutions.values()]


def _share(error: Measurement, baseline: Measurement, difference: Measurement | None) -> Measurement:
    if not baseline.value > 0:
        return Measurement(math.nan, None, error.images)
    ratio = error.value / baseline.value
    if difference is None or difference.standard_error is None:
        return Measurement(1 - ratio, None, error.images)
    variances = [(measured.standard_error or 0.0) ** 2 for measured in (error, baseline, difference)]
    covariance = (variances[0] + variances[1] - variances[2]) / 2
    variance = variances[0] + ratio**2 * variances[1] - 2 * ratio * covariance  # of error − ratio · baseline
    return Measurement(1 - ratio, math.sqrt(max(variance, 0.0)) / baseline.value, error.images)
