"""The section of `evaluate` on local bi-Lipschitz geometry: averages over images and over samples of the model.

docs/bi_lipschitz.md defines the quantities by their keys.

Every image gives one row of numbers, whichever process measured it. Averages are taken over the whole table, so that
they do not depend on batches or processes.

Shapes: B images of a batch, N images, P parts (each latent group, then all groups together), U = 2 units (raw, σ_p).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from vdvae_lr.errors import UnmeasurableError
from vdvae_lr.evaluation.batches import ExampleNoise, Examples, posterior_passes
from vdvae_lr.evaluation.group_choice import named_groups
from vdvae_lr.evaluation.jacobian.bi_lipschitz import (
    DENSE_DIMENSIONS,
    IMAGES,
    RANK_TOLERANCE,
    LatentSpectrum,
    LocalBiLipschitz,
    LocalGeometry,
    NoGeometryError,
    local_bi_lipschitz,
)
from vdvae_lr.evaluation.jacobian.spectrum import MAX_STEPS
from vdvae_lr.evaluation.moments import Moments, PerExample
from vdvae_lr.evaluation.quantities import Findings, Measurement, Quantity
from vdvae_lr.evaluation.task import SectionSettings, Task
from vdvae_lr.losses.elbo import group_rates_nats
from vdvae_lr.model.latent_model import LatentModel, LatentPass

SIGMA_IMAGES = 64
GEOMETRY_NOISE = "bi-Lipschitz"  # the purpose in noise keys: the samples of the prior


_ENDINGS = {
    "images": ("", ""),
    "prior_samples": ("_prior_samples", ", samples of the prior"),
    "raw": ("", ""),
    "prior_scale": ("_prior_scale", ", latents in σ_p"),
}
"""By the name of a pass or a unit: the ends of keys and of titles."""
_UNITS = ("raw", "prior_scale")
_COLUMNS = {
    "largest_singular_value": "largest singular value of the decoder's Jacobian",
    "smallest_singular_value": "smallest singular value that rank allows to be positive",
    "numerical_rank": "numerical rank of the decoder's Jacobian",
    "kappa_min": "κ_min, least response of the image to a latent move",
    "local_bi_lipschitz": "local bi-Lipschitz constant L(z)",
    "bi_lipschitz_of_most": "the same for {:g}% of random moves of the latents",
    "composite_deviation": "‖J_E∘D − I‖",
    "theorem_bound": "least KL(p(z|x)‖p(z)), from the spectrum",
    "constant_bound": "least KL(p(z|x)‖p(z)), from L(z) alone",
}
_BOUNDS = ("theorem_bound", "constant_bound")  # in nats/dim; they hold with latents in σ_p only
_STATUS = ("movable", "complete", "converged", "composite_converged", "rate")
_NAMES = (*_COLUMNS, *_STATUS)


def measure_bi_lipschitz(task: Task) -> Findings:
    """Quantities, the spectra of every image as plain JSON, and notes for the reader.

    Measures at one posterior draw of each of the first `jacobian_images` images, and at as many samples of the prior.

    Raises:
        UnmeasurableError: on every process, if one image has no geometry (`local_bi_lipschitz`) or the decoder has
            no σ.
    """
    model, measuring, settings = task.model, task.measuring, task.settings
    if settings.jacobian_images < 1:
        return Findings()
    sigma = _decoder_sigma(task)
    tables = []
    for where, passes in (("images", _image_passes), ("prior_samples", _sample_passes)):
        count = measuring.count(settings.jacobian_images)
        tables.append(LocalTable(model, where, count, settings, sigma.value))
        _fill(tables[-1], passes(task), task)
    quantities = [Quantity("decoder_sigma", "σ of the Gaussian decoder N(D(z), σ²)", "", sigma)]
    for table in tables:
        quantities += table.quantities()
    details = {"spectra": [entry for table in tables for entry in table.spectra()]}
    return Findings(quantities, details=details, notes=_notes(task, tables))


@torch.no_grad()
def _decoder_sigma(task: Task) -> Measurement:
    """The model's own σ; or the root mean square of x − D(z) over the first images, whose error follows from that of
    the mean square.
    """
    model, measuring = task.model, task.measuring
    if (own := model.pixel_sigma) is not None:
        return Measurement(own, None, measuring.count())
    moments = Moments((), model.device)
    for seen in posterior_passes(model, measuring.batches("decoder's σ", SIGMA_IMAGES), measuring.seed):
        moments.add(squared_residuals(seen.target, seen.passed.likelihood.mean()))
    moments.all_reduce_(measuring.world)
    if not moments.mean.isfinite():
        raise NoGeometryError(IMAGES)
    sigma = math.sqrt(moments.mean.item())
    if sigma == 0:
        raise UnmeasurableError(
            "D(z) equals every image exactly, which leaves no σ; measure without the Jacobian (0 images)."
        )
    error = moments.standard_error.item() / (2 * sigma)
    return Measurement(sigma, None if math.isnan(error) else error, moments.count)


def squared_residuals(target: Tensor, image: Tensor) -> Tensor:
    """Mean square of x − D(z) over an image's numbers: (B,), on the target scale.

    The root of its mean over images is the σ with which N(D(z), σ²I) gives them the highest likelihood.
    """
    return (target - image).square().flatten(1).mean(1)


def _image_passes(task: Task) -> Iterator[tuple[Examples, LatentPass]]:
    batches = task.measuring.batches("decoder's Jacobian, images", task.settings.jacobian_images)
    for seen in posterior_passes(task.model, batches, task.measuring.seed, reencoding=True):
        yield seen.examples, seen.passed


@torch.no_grad()
def _sample_passes(task: Task) -> Iterator[tuple[Examples, LatentPass]]:
    noise = ExampleNoise(task.model, GEOMETRY_NOISE, task.measuring.seed, prior=True)
    for examples in task.measuring.samples("decoder's Jacobian, samples", task.settings.jacobian_images):
        yield examples, task.model.generate(len(examples), noise.draw(examples).prior, keep_contexts=True)


class LocalTable:
    """All numbers of each image in one row. Quantities and spectra follow when the processes' rows are merged."""

    def __init__(self, model: LatentModel, where: str, images: int, settings: SectionSettings, sigma: float) -> None:
        self.where = where
        self.sizes = [math.prod(shape) for shape in model.latent_shapes]
        self.sizes.append(sum(self.sizes))
        self._dimensions = model.dimensions
        self._values = values = settings.jacobian_values
        self._confidence = settings.jacobian_confidence
        self._sigma = sigma
        self._shape = (images, 2, len(self.sizes), len(_NAMES) + values)
        self.rows = PerExample(images, 1 + math.prod(self._shape[1:]), model.device)

    def add(self, examples: Examples, found: Sequence[LocalBiLipschitz], passed: LatentPass) -> None:
        """Add one batch, with the pass at whose latents it was measured."""
        rates = torch.full((len(found), len(self.sizes)), math.nan, dtype=torch.float64)
        if passed.posteriors:
            by_group = group_rates_nats(passed.posteriors, passed.priors).double().cpu() / self._dimensions
            rates = torch.cat([by_group, by_group.sum(1, keepdim=True)], dim=1)
        rows = [
            [one.clamped_share, *self._numbers(one.raw, rate), *self._numbers(one.prior_scale, rate)]
            for one, rate in zip(found, rates.tolist(), strict=True)
        ]
        self.rows.add(examples, torch.tensor(rows, dtype=torch.float64, device=self.rows.values.device))

    def _numbers(self, geometry: LocalGeometry, rates: Sequence[float]) -> list[float]:
        groups = zip(geometry.spectra, geometry.deviations, geometry.deviations_converged, strict=True)
        parts = [*groups, (geometry.together, math.nan, True)]
        return [number for part, rate in zip(parts, rates, strict=True) for number in self._part(*part, rate)]

    def _part(self, spectrum: LatentSpectrum, deviation: float, deviation_converged: bool, rate: float) -> list[float]:
        """In the order of `_NAMES`, then the spectrum."""
        leading = spectrum.values[: self._values].tolist()
        return [
            spectrum.largest,
            spectrum.smallest,
            spectrum.numerical_rank,
            spectrum.kappa_min,
            spectrum.local_bi_lipschitz,
            spectrum.bi_lipschitz_of_most(self._confidence),
            deviation,
            spectrum.theorem_bound_nats(self._sigma) / self._dimensions,
            spectrum.constant_bound_nats(self._sigma) / self._dimensions,
            spectrum.movable,
            spectrum.complete,
            spectrum.converged,
            deviation_converged,
            rate,
            *leading,
            *[math.nan] * (self._values - len(leading)),
        ]

    @property
    def _parts(self) -> Tensor:
        """(N, U, P, names and values)."""
        return self.rows.values[:, 1:].reshape(self._shape).cpu()

    def column(self, name: str) -> Tensor:
        """The numbers of that name: (N, U, P)."""
        return self._parts[..., _NAMES.index(name)]

    def quantities(self) -> list[Quantity]:
        """Averages over the images."""
        end, ending = _ENDINGS[self.where]
        share = _average(self.rows.values[:, 0])
        found = [Quantity(f"clamped_share{end}", f"share of the mean image that is clamped{ending}", "", share)]
        for number, unit in enumerate(_UNITS):
            suffix, words = _ENDINGS[unit]
            for name, title in _COLUMNS.items():
                bound = name in _BOUNDS
                if bound and unit == "raw":
                    continue
                *groups, total = [_average(values) for values in self.column(name)[:, number].T]
                key = f"{name}{'' if bound else suffix}{end}"
                whole = None if name == "composite_deviation" else total
                dimension = "nats/dim" if bound else ""
                named = title.format(100 * self._confidence) + words + ending
                found.append(Quantity(key, named, dimension, whole, tuple(groups)))
        return found

    def spectra(self) -> list[dict[str, Any]]:
        """Every image's leading singular values, and what is known of them."""
        return [
            self._entry(image, unit, part, row)
            for image, units in enumerate(self._parts.tolist())
            for unit, parts in zip(_UNITS, units, strict=True)
            for part, row in enumerate(parts)
        ]

    def _entry(self, image: int, unit: str, part: int, row: Sequence[float]) -> dict[str, Any]:
        numbers = dict(zip(_NAMES, row, strict=False))
        constant = numbers["local_bi_lipschitz"]
        return {
            "of": self.where,
            "example": image,
            "group": part if part < len(self.sizes) - 1 else None,
            "unit": unit,
            "latents": self.sizes[part],
            "movable": int(numbers["movable"]),
            "singular_values": [value for value in row[len(_NAMES) :] if not math.isnan(value)],
            "complete": bool(numbers["complete"]),
            "converged": bool(numbers["converged"]),
            "composite_converged": bool(numbers["composite_converged"]),
            "local_bi_lipschitz": constant if math.isfinite(constant) else None,
            "least_kl": numbers["theorem_bound"] if unit == "prior_scale" else None,
            "rate": numbers["rate"] if math.isfinite(numbers["rate"]) else None,
        }


def _average(values: Tensor) -> Measurement:
    """The average of one number for each image: (N,)."""
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Measurement(values.mean().item(), error if math.isfinite(error) else None, len(values))


def _fill(table: LocalTable, passes: Iterable[tuple[Examples, LatentPass]], task: Task) -> None:
    """Measure all passes. If one process refuses an image, raise its NoGeometryError on every process."""
    settings, world = task.settings, task.measuring.world
    values, tolerance = settings.jacobian_values, settings.jacobian_tolerance
    none = IMAGES - 1
    cause = none
    try:
        for examples, passed in passes:
            table.add(examples, local_bi_lipschitz(task.model, passed, values=values, tolerance=tolerance), passed)
    except NoGeometryError as refused:
        cause = refused.cause
    cause = world.highest(cause)
    if cause > none:
        raise NoGeometryError(cause)
    table.rows.all_reduce_(world)


def _notes(task: Task, tables: Sequence[LocalTable]) -> list[str]:
    model, values, tolerance = task.model, task.settings.jacobian_values, task.settings.jacobian_tolerance
    sizes = tables[0].sizes
    movable = int(max(table.column("movable").max().item() for table in tables))
    notes = []
    if movable < model.dimensions:
        notes.append(
            "The decoder's Jacobian is that of the mean image clamped to [-1, 1]: numbers beyond do not move (here at "
            f"most {movable:,} of {model.dimensions:,} do)."
        )
    if sizes[-1] > movable:
        wide = [group for group, size in enumerate(sizes[:-1]) if size > movable]
        groups = f"Latent {named_groups(wide)}, and all groups together," if wide else "All latent groups together"
        notes.append(
            f"{groups} have more latents than the image has numbers that move: there κ_min is 0 by rank, L(z) is "
            "infinite, and a group's ‖J_E∘D − I‖ is at least 1."
        )
    if not all(table.column("complete").all() for table in tables):
        notes.append(
            f"For images of more than {DENSE_DIMENSIONS:,} numbers the leading {values} singular values are iterated "
            f"(all of them for groups of up to {MAX_STEPS} latents). For other groups the singular values, rank, least "
            "KL and ‖J_E∘D − I‖ are at least the numbers stated, and the smallest singular values are not known."
        )
    if not all((table.column("converged") * table.column("composite_converged")).all() for table in tables):
        notes.append(
            f"Some iterated singular values still have residuals above {tolerance:g} of the largest after {MAX_STEPS} "
            "steps (`converged` and `composite_converged` in the spectra)."
        )
    notes.append(
        f"Singular values below {RANK_TOLERANCE:g} of the largest count as 0. The least KL(p(z|x)‖p(z)) is that of the "
        "decoder linearised at z, with Gaussian noise of decoder_sigma; a group's is that with all other groups given."
    )
    return notes
