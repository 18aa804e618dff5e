"""One row of numbers an image, made by whichever process has it, and what is read from the finished table.

Averages are taken over the whole table, so that they depend on no batch and no process.

Shapes: N images, P parts (each latent group, then all together), U = 2 units (raw, σ_p).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vdvae_lr.evaluation.batches import Examples
from vdvae_lr.evaluation.jacobian.bi_lipschitz import LocalBiLipschitz, LocalGeometry
from vdvae_lr.evaluation.jacobian.latent_spectrum import LatentSpectrum
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.quantities import Measurement, PerExample, Quantity
from vdvae_lr.model.latent_model import LatentModel

_UNITS = {"": "raw", "_prior_scale": "prior_scale"}
_UNIT_WORDS = {"": "", "_prior_scale": ", latents in σ_p"}


class _Column(NamedTuple):
    key: str
    title: str
    unit: str = ""
    prior_scale_only: bool = False


_COLUMNS = (
    _Column("largest_singular_value", "largest singular value of the decoder's Jacobian"),
    _Column("smallest_singular_value", "smallest singular value that rank allows to be positive"),
    _Column("numerical_rank", "numerical rank of the decoder's Jacobian"),
    _Column("kappa_min", "κ_min, least response of the image to a latent move"),
    _Column("local_bi_lipschitz", "local bi-Lipschitz constant L(z)"),
    _Column("composite_deviation", "‖J_E∘D − I‖"),
    _Column("theorem_bound", "least KL(p(z|x)‖p(z)), from the spectrum", "nats/dim", True),
    _Column("constant_bound", "least KL(p(z|x)‖p(z)), from L(z) alone", "nats/dim", True),
)
_STATUS = ("movable", "complete", "converged", "composite_converged")


@dataclass(frozen=True)
class Where:
    """Which latents a table is of."""

    suffix: str
    words: str
    name: str


OF_IMAGES = Where("", "", "images")
OF_SAMPLES = Where("_prior_samples", ", samples of the prior", "prior_samples")


class LocalTable:
    """One row an image: every column of every part and unit, then its leading singular values and its status."""

    def __init__(self, model: LatentModel, where: Where, images: int, values: int, sigma: float) -> None:
        shapes = model.latent_shapes
        self.where = where
        self.sizes = [math.prod(shape) for shape in shapes]
        self.sizes.append(sum(self.sizes))
        self._dimensions = model.dimensions
        self._values = values
        self._sigma = sigma
        self._shape = (images, len(_UNITS), len(self.sizes), len(_COLUMNS) + len(_STATUS) + values)
        self._rows = PerExample(images, 1 + math.prod(self._shape[1:]), model.device)

    def add(self, examples: Examples, found: Sequence[LocalBiLipschitz]) -> None:
        """Take in one batch."""
        rows = [[one.clamped_share, *self._numbers(one.raw), *self._numbers(one.prior_scale)] for one in found]
        self._rows.add(examples, torch.tensor(rows, dtype=torch.float64, device=self._rows.values.device))

    def _numbers(self, geometry: LocalGeometry) -> list[float]:
        numbers: list[float] = []
        deviations = (*geometry.deviations, math.nan)
        converged = (*geometry.deviations_converged, True)
        for part in zip((*geometry.spectra, geometry.together), deviations, converged, strict=True):
            numbers += self._part(*part)
        return numbers

    def _part(self, spectrum: LatentSpectrum, deviation: float, deviation_converged: bool) -> list[float]:
        """In the order of the columns, then of the status, then the spectrum."""
        leading = spectrum.values[: self._values].tolist()
        return [
            spectrum.largest,
            spectrum.smallest,
            spectrum.numerical_rank,
            spectrum.kappa_min,
            spectrum.local_bi_lipschitz,
            deviation,
            spectrum.theorem_bound_nats(self._sigma) / self._dimensions,
            spectrum.constant_bound_nats(self._sigma) / self._dimensions,
            spectrum.movable,
            spectrum.complete,
            spectrum.converged,
            deviation_converged,
            *leading,
            *[math.nan] * (self._values - len(leading)),
        ]

    def finish_(self, measuring: Measuring) -> "LocalTable":
        """Put the processes' rows together; every process must call this."""
        self._rows.all_reduce_(measuring.world)
        return self

    @property
    def parts(self) -> Tensor:
        """(N, U, P, columns)."""
        return self._rows.values[:, 1:].reshape(self._shape).cpu()

    def status(self, name: str) -> Tensor:
        """A column that is no quantity: (N, U, P)."""
        return self.parts[..., len(_COLUMNS) + _STATUS.index(name)]

    def quantities(self) -> list[Quantity]:
        """Averages over the images."""
        suffix, words = self.where.suffix, self.where.words
        share = _average(self._rows.values[:, 0])
        found = [Quantity(f"clamped_share{suffix}", f"share of the mean image that is clamped{words}", "", share)]
        for unit, (unit_suffix, unit_words) in enumerate(_UNIT_WORDS.items()):
            for number, column in enumerate(_COLUMNS):
                if column.prior_scale_only and unit_suffix == "":
                    continue
                parts = [_average(values) for values in self.parts[:, unit, :, number].T]
                total = None if column.key == "composite_deviation" else parts[-1]
                key = column.key + ("" if column.prior_scale_only else unit_suffix) + suffix
                found.append(Quantity(key, column.title + unit_words + words, column.unit, total, tuple(parts[:-1])))
        return found

    def spectra(self) -> list[dict[str, Any]]:
        """Every image's leading singular values, and what is known of them."""
        return [
            self._entry(image, unit, name, part)
            for image in range(self._shape[0])
            for unit, name in enumerate(_UNITS.values())
            for part in range(len(self.sizes))
        ]

    def _entry(self, image: int, unit: int, name: str, part: int) -> dict[str, Any]:
        row = self.parts[image, unit, part].tolist()
        numbers = dict(zip([*(column.key for column in _COLUMNS), *_STATUS], row, strict=False))
        together = part == len(self.sizes) - 1
        constant = numbers["local_bi_lipschitz"]
        return {
            "of": self.where.name,
            "example": image,
            "group": None if together else part,
            "unit": name,
            "latents": self.sizes[part],
            "movable": int(numbers["movable"]),
            "singular_values": [value for value in row[len(_COLUMNS) + len(_STATUS) :] if not math.isnan(value)],
            "complete": bool(numbers["complete"]),
            "converged": bool(numbers["converged"]),
            "composite_converged": bool(numbers["composite_converged"]),
            "local_bi_lipschitz": constant if math.isfinite(constant) else None,
        }


def _average(values: Tensor) -> Measurement:
    """Of one number an image: (N,)."""
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return Measurement(values.mean().item(), error if math.isfinite(error) else None, len(values))
