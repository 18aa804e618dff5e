"""What decoded images give back of the latents of data: recovered information, LR in every form, and R², by group.

One posterior pass over an image gives z ~ q(z|x) and three decoded images; each is re-encoded given the original z_<l,
from the states of that pass. Nothing here is a bound on a mutual information.

Shapes: B images, L latent groups, C channels, H W resolution.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from vdvae_lr.evaluation.explained_variance import LatentVariation, explained_share
from vdvae_lr.evaluation.information import group_information_nats
from vdvae_lr.evaluation.posterior_passes import Seen
from vdvae_lr.evaluation.quantities import Findings, GroupMoments, Quantity
from vdvae_lr.losses.latent_reconstruction import FORMS, FormName, group_latent_reconstruction
from vdvae_lr.model.gaussian import DiagonalGaussian
from vdvae_lr.model.latent_model import LatentModel, LatentPass
from vdvae_lr.processes.world import World

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
_SQUARES = {"sampled_image": "lr_raw", "mean_image": "lr_raw_mean_image"}  # ‖μ' − z‖², of the images that R² is for
_INNOVATION = "innovation"  # ‖z − μ_p‖²


def decoded_images(model: LatentModel, passed: LatentPass, noise: Sequence[Tensor] | None) -> dict[str, Tensor]:
    """The three decoded images of a pass, (B, C, H, W) each on the target scale, by their names in keys."""
    mean = passed.decoded("mean", None)
    sampled = passed.decoded("sample", noise)
    return dict(zip(_IMAGES, (mean, sampled, model.pixel_scale.round_target(mean)), strict=True))


def recovery_values(
    model: LatentModel, passed: LatentPass, images: Mapping[str, Tensor], before: LatentModel | None
) -> dict[str, Tensor]:
    """All that adds up over latent groups, by key: nats or squares per image, (B, L) each."""
    reencoded = {name: model.reencode(passed, image) for name, image in images.items()}
    values = {f"recovered_{name}": -_loss(passed, posteriors, "information") for name, posteriors in reencoded.items()}
    if before is not None:
        given = before.decode(passed.latents, keep_contexts=True)
        read = {name: before.reencode(given, image) for name, image in images.items()}
        values |= {f"recovered_{name}_before": group_information_nats(passed, read[name]) for name in images}
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
    described = {f"recovered_{name}": (f"recovered from {words}", "nats/dim") for name, words in _IMAGES.items()}
    if before:
        for name, words in _IMAGES.items():
            title = f"recovered from {words}, by the encoder before fine-tuning"
            described[f"recovered_{name}_before"] = (title, "nats/dim")
    described |= {f"lr_{form}": (f"LR loss, {form}, sampled image", unit) for form, unit in _UNITS.items()}
    return described | {"lr_raw_mean_image": ("LR loss, raw, mean image", _UNITS["raw"])}


class RecoveryReader:
    """Takes in passes with kept contexts: recovered information, LR losses and R².

    Args:
        model: the model, on its device.
        before: a model of the same architecture, whose encoder reads the same images; None leaves that out.
    """

    def __init__(self, model: LatentModel, before: LatentModel | None = None) -> None:
        self._model = model
        self._before = before
        self._described = _described(before is not None)
        keys = [*self._described, _INNOVATION, *map(_difference, _SQUARES.values())]
        self._moments = {key: GroupMoments(model.resolutions, model.device) for key in keys}
        self._variation = LatentVariation(model.latent_shapes, model.device)

    def add(self, seen: Seen) -> None:
        """Take in one batch."""
        images = decoded_images(self._model, seen.passed, seen.image_noise)
        self._variation.add(seen.passed.latents)
        for key, values in recovery_values(self._model, seen.passed, images, self._before).items():
            self._moments[key].add(values)

    def all_reduce_(self, world: World) -> None:
        """Put the processes' numbers together; every process must call this."""
        for averages in self._moments.values():
            averages.all_reduce_(world)
        self._variation.all_reduce_(world)

    def findings(self) -> Findings:
        """The quantities that add up over groups, then R²."""
        per_dim = 1 / self._model.dimensions
        added = [
            self._moments[key].quantity(key, title, unit, per_dim) for key, (title, unit) in self._described.items()
        ]
        return Findings([*added, *_shares(self._moments, self._variation, self._model.resolutions)])


def _shares(
    moments: Mapping[str, GroupMoments], variation: LatentVariation, resolutions: Sequence[int]
) -> list[Quantity]:
    innovation = moments[_INNOVATION].quantity("", "", "")
    spread = variation.quantity(resolutions)
    found = []
    for image, squares in _SQUARES.items():
        error = moments[squares].quantity("", "", "")
        difference = moments[_difference(squares)].quantity("", "", "")
        words = _IMAGES[image]
        found += [
            explained_share(f"latent_r2_{image}", f"latent R², {words}", error, spread),
            explained_share(f"innovation_r2_{image}", f"innovation R², {words}", error, innovation, difference),
        ]
    return found
