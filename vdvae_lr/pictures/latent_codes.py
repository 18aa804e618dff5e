"""Latents of images taken apart and put together again: what interpolating, traversing and swapping share.

A group's latents can be spoken of in two coordinates:

- latents: z_l as it is. An edited z_l leaves the other groups' numbers where they are.
- standardised: ε_l = (z_l − μ_p,l(z_<l)) / σ_p,l(z_<l), in which the prior is N(0, I) over all groups at once. The map
  between ε and z is one to one (ancestral sampling), so keeping ε_l while z_<l changes moves z_l along with its prior:
  finer groups follow the coarser ones.

Shapes: B images, C channels, H W resolution, L latent groups of (Z, R, R).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Literal, get_args

import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.batches import ExampleNoise, Examples, levels_for
from vdvae_lr.evaluation.bound import POSTERIOR_NOISE
from vdvae_lr.model.vdvae.decoder import FromPrior, Given, LatentSource, TopDownPass
from vdvae_lr.model.vdvae.encoder import Features
from vdvae_lr.model.vdvae.vae import VDVAE
from vdvae_lr.pictures.images import Pictures, to_levels

Coordinates = Literal["standardised", "latents"]
PosteriorLatents = Literal["mean", "sample"]


@dataclass(frozen=True)
class LatentCode:
    """All groups' latents of B images, with the priors they were met with; tuples are top-down, (B, Z, R, R) each."""

    latents: tuple[Tensor, ...]
    prior_means: tuple[Tensor, ...]
    prior_scales: tuple[Tensor, ...]

    def values(self, coordinates: Coordinates) -> tuple[Tensor, ...]:
        """z or ε of every group.

        Raises:
            InputError: the model's own latents are not finite; or a group has no standardised values, for its prior has
                no width.
        """
        self._check_finite()
        if coordinates == "latents":
            return self.latents
        parts = zip(self.latents, self.prior_means, self.prior_scales, strict=True)
        noise = tuple((latent - mean) / scale for latent, mean, scale in parts)
        bad = [number for number, values in enumerate(noise) if not bool(values.isfinite().all())]
        if bad:
            raise InputError(
                f"latent group {bad[0]} has a prior of zero variance, or nearly so, and no standardised values; choose "
                "coordinates latents."
            )
        return noise

    def _check_finite(self) -> None:
        for number, tensors in enumerate(zip(self.latents, self.prior_means, self.prior_scales, strict=True)):
            if not all(bool(tensor.isfinite().all()) for tensor in tensors):
                raise InputError(
                    f"latent group {number} or its prior is not finite (NaN or infinite) before anything is changed; "
                    "try other images, a lower temperature, or other weights."
                )

    def rows(self, images: Sequence[int]) -> "LatentCode":
        """The code of some of the images, in the given order, with repetitions."""
        chosen = list(images)
        parts = (self.latents, self.prior_means, self.prior_scales)
        return LatentCode(*(tuple(tensor[chosen] for tensor in part) for part in parts))

    def sources(self) -> list[LatentSource]:
        """Decodes to the images' own reconstructions."""
        return [Given(latent) for latent in self.latents]

    def edited(self, values: Sequence[Tensor], coordinates: Coordinates, held: int) -> list[LatentSource]:
        """Decodes to an edit: the first `held` groups' own latents, the others as `values` says in `coordinates`."""
        kept = self.sources()[:held]
        if coordinates == "latents":
            return [*kept, *(Given(value) for value in values[held:])]
        return [*kept, *(FromPrior(value) for value in values[held:])]


def code_of(passed: TopDownPass) -> LatentCode:
    """The latents of any pass."""
    groups = passed.groups
    return LatentCode(
        tuple(group.latent for group in groups),
        tuple(group.prior.mean for group in groups),
        tuple(group.prior.log_scale.exp() for group in groups),
    )


def posterior_noise(model: VDVAE, latents: PosteriorLatents, seed: int, examples: Examples) -> Sequence[Tensor]:
    """What `VDVAE.infer` takes: zeros for the posterior's mean in every group, or the draws of `evaluate_bound`."""
    if latents == "sample":
        return ExampleNoise(model, POSTERIOR_NOISE, seed).draw(examples).posterior
    gain = model.decoder.gain
    return [gain.new_zeros(1, 1, 1, 1).expand(len(examples), *shape) for shape in model.latent_shapes]


def infer_code(model: VDVAE, pictures: Pictures, latents: PosteriorLatents, seed: int, batch: int) -> LatentCode:
    """The code of images (B, H, W, C) uint8, `batch` at a time; `latents` and `seed` as in `posterior_noise`.

    Raises:
        InputError: `batch` is none.
    """
    codes = []
    for chunk in chunks(len(pictures), batch):
        levels = levels_of(model, pictures[chunk.start : chunk.stop])
        codes.append(code_of(model.infer(levels, posterior_noise(model, latents, seed, chunk))))
    return joined_codes(codes)


def joined_codes(codes: Sequence[LatentCode]) -> LatentCode:
    """The codes of all images, one after the other."""
    if len(codes) == 1:
        return codes[0]
    parts = ([getattr(code, field.name) for code in codes] for field in fields(LatentCode))
    return LatentCode(*(tuple(torch.cat(group) for group in zip(*part, strict=True)) for part in parts))


def levels_of(model: VDVAE, pictures: Pictures) -> Tensor:
    """Pictures (B, H, W, C) uint8 → levels (B, C, H, W) in the model's number format, on its device."""
    return levels_for(model, torch.from_numpy(pictures).permute(0, 3, 1, 2))


def decoded_pictures(
    model: VDVAE, sources: Sequence[LatentSource], count: int, features: Features | None = None
) -> Pictures:
    """The mixture's mean images of `count` codes: (count, H, W, C) uint8; `features` where a source is the posterior.

    Raises:
        InputError: as `numeric_levels`.
    """
    return numeric_levels(model, model.likelihood(model.top_down(sources, count, features).output).mean())


def numeric_levels(model: VDVAE, image: Tensor) -> Pictures:
    """Images (B, C, H, W) on the target scale → (B, H, W, C) uint8.

    Raises:
        InputError: latents so far from what the model knows that their image holds NaN.
    """
    if bool(image.isnan().any()):
        raise InputError(
            "the decoder makes no image of such latents (NaN); lower the temperature, or stay nearer to an image's."
        )
    return to_levels(model.pixel_scale, image)


def chunks(count: int, batch: int) -> Iterator[range]:
    """`count` things in their order, `batch` at a time: ⌈count / batch⌉ ranges.

    Raises:
        InputError: `batch` is none.
    """
    if batch < 1:
        raise InputError(f"batch is {batch}; it must be 1 or more.")
    return (range(start, min(start + batch, count)) for start in range(0, count, batch))


def check_choice(name: str, value: object, choices: object) -> None:
    """Refuse a value that is none of a `Literal`'s; raises InputError."""
    known = get_args(choices)
    if not isinstance(value, str) or value not in known:
        given = repr(value) if isinstance(value, str) else f"of type {type(value).__name__}"
        raise InputError(f"{name} is {given}; it must be {' or '.join(known)}.")
