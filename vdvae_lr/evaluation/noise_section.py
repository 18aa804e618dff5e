"""The section of an evaluation on noise in the latents: RMS, similarity, bands by spatial scale, RMS per active latent.

Shapes: B images, C channels, H W resolution, K bands, L latent groups.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product, starmap, zip_longest

from torch import Tensor

from vdvae_lr.evaluation.activity import ActiveLatents, ActivityReader
from vdvae_lr.evaluation.bands import band_name, band_resolutions, band_squares
from vdvae_lr.evaluation.batches import read_passes
from vdvae_lr.evaluation.group_choice import groups_by_resolution, parse_groups
from vdvae_lr.evaluation.moments import PerExample
from vdvae_lr.evaluation.noise_response import (
    UNIT_WORDS,
    ImageMeasure,
    LatentNoise,
    check_finite_images,
    image_rms,
    image_square,
    response_moments,
)
from vdvae_lr.evaluation.perceptual import structural_similarity
from vdvae_lr.evaluation.quantities import Findings, Measurement, Quantity
from vdvae_lr.evaluation.task import NoiseUnit, Task

_BAND_KEY = re.compile(r"noise_band_(\d{1,6})_(raw|prior_scale)_(.+)", re.ASCII)


@dataclass(frozen=True)
class _Number:
    """One measure of the images' change under one condition."""

    mean: Measurement
    by_image: tuple[float, ...] = ()
    """Of each image; empty if it is not kept."""

    def root(self) -> "_Number":
        """The root of the mean. By image it is linear in that image's number, as in the delta method."""
        mean, root = self.mean.value, self.mean.root()
        scale = 1 / (2 * root.value) if root.value else 0.0
        return _Number(root, tuple(root.value + scale * (each - mean) for each in self.by_image))


@dataclass(frozen=True)
class _Response:
    """What the images do under one condition."""

    rms: _Number
    ssim: _Number
    square: _Number
    """The mean square of the change."""
    bands: tuple[_Number, ...]
    """Its parts by spatial scale, finest first."""


def _image_bands(image: Tensor, clean: Tensor) -> Tensor:
    """The parts of `image_square` by spatial scale: (B, K), finest first."""
    return band_squares((image - clean) / 2)


_MEASURES: Sequence[ImageMeasure] = (image_rms, structural_similarity, image_square, _image_bands)


def measure_noise(task: Task) -> Findings:
    """How far the mean image moves under latent noise: RMS, similarity, RMS by spatial scale, RMS per active latent.

    The total has noise in all chosen groups at once, a resolution in all its groups, a group in that group alone. Each
    is measured by itself, because responses do not add up. Each needs a decoder pass for every unit, variance and
    image, and another one with noise in the active latents only.

    Raises:
        InputError: the chosen groups do not exist.
        UnmeasurableError: noise is so large that images are not finite.
    """
    if task.settings.noise_images < 1:
        return Findings()
    return _NoiseSection(task).findings()


class _NoiseSection:
    """The responses under all conditions of one task, and the quantities made of them."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._total, self._by_resolution, self._alone = _places(task)
        self._bands = band_resolutions(task.model.image_shape[-1])
        self._active = _active_latents(task)
        self._counts = {unit: active.counts() for unit, active in self._active.items()}
        self._found = self._measured()

    def _measured(self) -> dict[LatentNoise, _Response]:
        model, measuring, settings = self._task.model, self._task.measuring, self._task.settings
        levels = list(product(settings.noise_units, map(float, settings.noise_variances)))
        places = [self._total, *self._by_resolution.values(), *self._alone]
        conditions = [(*level, place) for place in places for level in levels]  # those of the total first
        noises = [LatentNoise(variance, unit, place) for unit, variance, place in conditions]
        noises += [self._in_active(*condition) for condition in conditions if self._active]
        noises = list(dict.fromkeys(noises))  # such as a group that is its resolution's only one
        numbers = len(_MEASURES) - 1 + len(self._bands)
        kept = PerExample(measuring.count(settings.noise_images), len(levels) * numbers, model.device)
        moments = response_moments(
            model,
            measuring.batches("noise response", settings.noise_images),
            noises,
            _MEASURES,
            seed=measuring.seed,
            world=measuring.world,
            at_once=measuring.batch,
            numbers=numbers,
            kept=kept,
        )
        check_finite_images(moments.mean.view(len(noises), -1).sum(1), [noise.variance for noise in noises])
        by_image = [kept.column(column) for column in range(kept.values.shape[1])]
        values = list(starmap(_Number, zip_longest(moments.measurements(), by_image, fillvalue=())))
        rows = [values[start : start + numbers] for start in range(0, len(values), numbers)]
        return {
            noise: _Response(rms, ssim, square, tuple(bands))
            for noise, (rms, ssim, square, *bands) in zip(noises, rows, strict=True)
        }

    def _in_active(self, unit: NoiseUnit, variance: float, place: frozenset[int]) -> LatentNoise:
        """Noise in the active latents of these groups, stated so that equal conditions are measured once."""
        shapes, counts = self._task.model.latent_shapes, self._counts[unit]
        some = frozenset(group for group in place if counts[group])
        if not some:
            return LatentNoise(0.0, unit, place)
        every = all(counts[group] == math.prod(shapes[group]) for group in some)
        return LatentNoise(variance, unit, some, None if every else self._active[unit])

    def findings(self) -> Findings:
        """All quantities, those of the active latents and of the bands last and without a variance of 0."""
        settings = self._task.settings
        conditions = list(product(settings.noise_units, map(float, settings.noise_variances)))
        disturbing = [(unit, variance) for unit, variance in conditions if variance > 0]
        quantities = [
            *(self._everywhere("noise_rms", "image RMS", *each, lambda found: found.rms) for each in conditions),
            *(
                self._everywhere("noise_ssim", "structural similarity", *each, lambda found: found.ssim)
                for each in conditions
            ),
        ]
        if self._active:
            quantities += [quantity for each in disturbing for quantity in self._active_quantities(*each)]
        quantities += [quantity for each in disturbing for quantity in self._band_quantities(*each)]
        return Findings(quantities)

    def _everywhere(
        self, key: str, title: str, unit: NoiseUnit, variance: float, number: Callable[[_Response], _Number]
    ) -> Quantity:
        def at(place: frozenset[int]) -> _Number:
            return number(self._found[LatentNoise(variance, unit, place)])

        return self._quantity(key, f"{title}, latent noise", unit, variance, at)

    def _active_quantities(self, unit: NoiseUnit, variance: float) -> Iterator[Quantity]:
        def response(place: frozenset[int]) -> _Response:
            return self._found[self._in_active(unit, variance, place)]

        def each(place: frozenset[int]) -> _Number:
            count = sum(self._counts[unit][group] for group in place)
            return _Number(response(place).square.mean.times(1 / max(count, 1)).root())

        title = "image RMS, active latents only, noise"
        yield self._quantity("noise_active_rms", title, unit, variance, lambda place: response(place).rms)
        yield self._quantity("noise_per_active", "image RMS per active latent, noise", unit, variance, each)

    def _band_quantities(self, unit: NoiseUnit, variance: float) -> Iterator[Quantity]:
        for index, band in enumerate(self._bands):

            def root(found: _Response, index: int = index) -> _Number:
                return found.bands[index].root()

            title = f"image RMS at {band_name(band, self._bands)}"
            yield self._everywhere(f"noise_band_{band}", title, unit, variance, root)

    def _quantity(
        self, key: str, title: str, unit: NoiseUnit, variance: float, at: Callable[[frozenset[int]], _Number]
    ) -> Quantity:
        total = at(self._total)
        return Quantity(
            f"{key}_{unit}_{variance}",
            f"{title} {variance:g}{UNIT_WORDS[unit]}",
            "",
            total.mean,
            tuple(at(place).mean for place in self._alone),
            {resolution: at(place).mean for resolution, place in self._by_resolution.items()},
            total.by_image,
        )


def _active_latents(task: Task) -> dict[NoiseUnit, ActiveLatents]:
    """The active latents in each unit, from the images that the response is measured on; empty if there is only one.

    A latent is active in units of the prior's scale if its posterior mean varies by the threshold times σ_p².
    """
    model, measuring, settings = task.model, task.measuring, task.settings
    if measuring.count(settings.noise_images) < 2:
        return {}
    activity = ActivityReader(model)
    batches = measuring.batches("active latents", settings.noise_images)
    read_passes(model, batches, [activity], seed=measuring.seed, world=measuring.world)
    return {
        unit: activity.active_latents(settings.active_threshold, relative=unit == "prior_scale")
        for unit in settings.noise_units
    }


def noise_bands(quantities: Iterable[Quantity]) -> dict[tuple[str, str], dict[int, Quantity]]:
    """The RMS by spatial scale among the quantities of an evaluation: by (unit, variance), then by band, finest first.

    Empty if an earlier version measured.
    """
    found: dict[tuple[str, str], dict[int, Quantity]] = {}
    for quantity in quantities:
        if match := _BAND_KEY.fullmatch(quantity.key):
            band, unit, variance = match.groups()
            found.setdefault((unit, variance), {})[int(band)] = quantity
    return found


def _places(task: Task) -> tuple[frozenset[int], dict[int, frozenset[int]], list[frozenset[int]]]:
    """Which groups get noise together: for the total, for each resolution, for each group."""
    resolutions = task.model.resolutions
    total = frozenset(parse_groups(task.settings.noise_groups, resolutions))
    if not task.settings.noise_by_group:
        return total, {}, []
    by_resolution = {level: frozenset(groups) for level, groups in groups_by_resolution(resolutions).items()}
    return total, by_resolution, [frozenset({group}) for group in range(len(resolutions))]
