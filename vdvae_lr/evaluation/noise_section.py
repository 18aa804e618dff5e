"""The noise response as a section of an evaluation: image RMS and structural similarity, by group and resolution.

Shapes: B images, C channels, H W resolution, L latent groups.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence

from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.moments import Moments
from vdvae_lr.evaluation.noise_response import (
    ImageMeasure,
    LatentNoise,
    NoiseUnit,
    check_finite_images,
    check_variances,
    image_rms,
    response_moments,
)
from vdvae_lr.evaluation.perceptual import structural_similarity
from vdvae_lr.evaluation.quantities import Findings, Measurement, Quantity, measurements
from vdvae_lr.model.latent_model import LatentModel

NOISE_VARIANCES = (0.0, 0.3, 0.4)
NOISE_IMAGES = 200
"""Each costs L + R + 1 decoder passes a condition if groups are also disturbed alone; images differ little."""
_MEASURES: dict[str, tuple[str, ImageMeasure]] = {
    "rms": ("image RMS", image_rms),
    "ssim": ("structural similarity", structural_similarity),
}
UNIT_WORDS: dict[NoiseUnit, str] = {"raw": "", "prior_scale": ", in prior's scale"}


def measure_noise(
    model: LatentModel,
    measuring: Measuring,
    *,
    variances: Sequence[float],
    units: Sequence[NoiseUnit],
    images: int,
    groups: Collection[int] | None = None,
    by_group: bool = True,
) -> Findings:
    """How far the mean image moves under latent noise: `noise_rms_UNIT_VARIANCE` and `noise_ssim_UNIT_VARIANCE`.

    Total: noise in all groups at once; resolution: in all its groups; group: in that group alone. Every level is
    measured by itself, for responses do not add up. Needs a decoder pass for each of them, unit, variance and image.

    Args:
        model: on its device.
        measuring: the images, seed and processes.
        variances: of the noise; at 0 the RMS is 0 and the similarity 1, exactly.
        units: of the noise, as in `LatentNoise`.
        images: measure on the first so many; 0: nothing.
        groups: the total is of noise in these groups only (top-down from 0); None: in all.
        by_group: also measure by resolution and by group.

    Raises:
        InputError: a variance that is none, or that is there twice.
        UnmeasurableError: one so large that the images are no numbers.
    """
    if images < 1:
        return Findings()
    check_variances(variances)
    conditions = list(itertools.product(units, map(float, variances)))
    total, by_resolution, single = _places(model, groups, by_group)
    places = list(dict.fromkeys([total, *by_resolution.values(), *single]))  # a group may be its resolution's only one
    noises = [LatentNoise(variance, unit, place) for unit, variance in conditions for place in places]
    moments = _measure(model, measuring, noises, images)
    found = dict(zip(itertools.product(noises, _MEASURES), measurements(moments), strict=True))

    def quantity(measure: str, unit: NoiseUnit, variance: float) -> Quantity:
        def at(place: frozenset[int]) -> Measurement:
            return found[LatentNoise(variance, unit, place), measure]

        return Quantity(
            f"noise_{measure}_{unit}_{variance}",
            f"{_MEASURES[measure][0]}, latent noise {variance:g}{UNIT_WORDS[unit]}",
            "",
            at(total),
            tuple(map(at, single)),
            {resolution: at(place) for resolution, place in by_resolution.items()},
        )

    return Findings([quantity(measure, *condition) for measure in _MEASURES for condition in conditions])


def _places(
    model: LatentModel, groups: Collection[int] | None, by_group: bool
) -> tuple[frozenset[int], Mapping[int, frozenset[int]], list[frozenset[int]]]:
    """Which groups get noise together: for the total, for each resolution, for each group."""
    resolutions = model.resolutions
    everywhere = range(len(resolutions))
    total = frozenset(everywhere if groups is None else groups)
    if not by_group:
        return total, {}, []
    levels = sorted(set(resolutions))
    members = {level: frozenset(g for g in everywhere if resolutions[g] == level) for level in levels}
    return total, members, [frozenset({group}) for group in everywhere]


def _measure(model: LatentModel, measuring: Measuring, noises: Sequence[LatentNoise], images: int) -> Moments:
    moments = response_moments(
        model,
        measuring.batches("noise response", images),
        noises,
        [measure for _, measure in _MEASURES.values()],
        seed=measuring.seed,
        world=measuring.world,
        at_once=measuring.batch,
    )
    check_finite_images(moments.mean.view(len(noises), -1).sum(1), [noise.variance for noise in noises])
    return moments
