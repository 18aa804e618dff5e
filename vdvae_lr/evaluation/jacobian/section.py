"""Local bi-Lipschitz geometry over images and over samples of the model: what `evaluate` reports of it.

docs/bi_lipschitz.md defines the quantities by their keys. Shapes: B images.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch

from vdvae_lr.errors import InputError, UnmeasurableError
from vdvae_lr.evaluation.batches import ExampleNoise, Examples, model_device
from vdvae_lr.evaluation.group_choice import named_groups
from vdvae_lr.evaluation.jacobian.bi_lipschitz import (
    DENSE_DIMENSIONS,
    IMAGES,
    LocalBiLipschitz,
    NoGeometryError,
    local_bi_lipschitz,
    posterior_pass,
    squared_residuals,
)
from vdvae_lr.evaluation.jacobian.latent_spectrum import RANK_TOLERANCE
from vdvae_lr.evaluation.jacobian.local_table import OF_IMAGES, OF_SAMPLES, LocalTable
from vdvae_lr.evaluation.jacobian.spectrum import MAX_STEPS
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.moments import Moments
from vdvae_lr.evaluation.quantities import Measurement, Quantity
from vdvae_lr.model.vdvae.decoder import TopDownPass
from vdvae_lr.model.vdvae.vae import VDVAE

SIGMA_IMAGES = 64
SAMPLE_NOISE = "bi-Lipschitz"
Measure = Callable[[TopDownPass], Sequence[LocalBiLipschitz]]


def measure_bi_lipschitz(
    model: VDVAE, measuring: Measuring, *, images: int, values: int, tolerance: float
) -> tuple[list[Quantity], dict[str, Any], list[str]]:
    """Quantities, the spectra of every image as plain JSON, and sentences that a reader needs.

    Args:
        model: on its device.
        measuring: the split, the seed and the processes.
        images: so many images of the split, one posterior draw each, and so many samples of the prior; 0: nothing.
        values: leading singular values of each spectrum.
        tolerance: of iterated values, relative to the largest.

    Raises:
        InputError: no value or no tolerance asked for.
        UnmeasurableError: on every process, where at one image the geometry is refused (`local_bi_lipschitz`), or the
            decoder has no σ.
    """
    if images < 1:
        return [], {}, []
    if values < 1 or not tolerance > 0:
        raise InputError(f"{values} singular values to a tolerance of {tolerance}; both must be positive.")
    sigma = _decoder_sigma(model, measuring)
    measure = partial(local_bi_lipschitz, model, values=values, tolerance=tolerance)
    tables = []
    for where, passes in ((OF_IMAGES, _image_passes), (OF_SAMPLES, _sample_passes)):
        tables.append(LocalTable(model, where, measuring.count(images), values, sigma.value))
        _fill(tables[-1], passes(model, measuring, images), measure, measuring)
    quantities = [Quantity("decoder_sigma", "σ of the Gaussian decoder N(D(z), σ²)", "", sigma)]
    for table in tables:
        quantities += table.quantities()
    details = {"spectra": [entry for table in tables for entry in table.spectra()]}
    return quantities, details, _notes(model, tables, values, tolerance)


def _decoder_sigma(model: VDVAE, measuring: Measuring) -> Measurement:
    """Root mean square of x − D(z) over the first images, with the error that its square's has."""
    moments = Moments((), model_device(model))
    for batch in measuring.batches("decoder's σ", SIGMA_IMAGES):
        moments.add(squared_residuals(model, batch.pixels, batch.indices, measuring.seed))
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


def _image_passes(model: VDVAE, measuring: Measuring, images: int) -> Iterator[tuple[Examples, TopDownPass]]:
    for batch in measuring.batches("decoder's Jacobian, images", images):
        yield batch.indices, posterior_pass(model, batch.pixels, batch.indices, measuring.seed)


def _sample_passes(model: VDVAE, measuring: Measuring, images: int) -> Iterator[tuple[Examples, TopDownPass]]:
    noise = ExampleNoise(model, SAMPLE_NOISE, measuring.seed, prior=True)
    for examples in measuring.samples("decoder's Jacobian, samples", images):
        with torch.no_grad():
            passed = model.generate(len(examples), noise.draw(examples).prior, keep_states=True)
        yield examples, passed


def _fill(
    table: LocalTable, passes: Iterable[tuple[Examples, TopDownPass]], measure: Measure, measuring: Measuring
) -> None:
    """Raises NoGeometryError on every process where it is raised on one."""
    cause = None
    try:
        for examples, passed in passes:
            table.add(examples, measure(passed))
    except NoGeometryError as refused:
        cause = refused.cause
    causes = torch.zeros(measuring.world.size, dtype=torch.int64, device=measuring.world.device)
    if cause is not None:
        causes[measuring.world.rank] = 1 + cause - IMAGES
    highest = int(measuring.world.all_reduce_sum_(causes).max())
    if highest:
        raise NoGeometryError(highest - 1 + IMAGES)
    table.finish_(measuring)


def _notes(model: VDVAE, tables: Sequence[LocalTable], values: int, tolerance: float) -> list[str]:
    sizes = tables[0].sizes[:-1]
    movable = int(max(table.status("movable").max().item() for table in tables))
    wide = [group for group, size in enumerate(sizes) if size > movable]
    notes = [
        "The decoder's Jacobian is that of the clamped mean image: a number of it beyond [-1, 1] does not move "
        f"(here at most {movable:,} of {model.config.dimensions:,} do).",
    ]
    if tables[0].sizes[-1] > movable:
        groups = f"Latent {named_groups(wide)}, and all groups together," if wide else "All latent groups together"
        notes.append(
            f"{groups} have more latents than the image has numbers that move: κ_min is 0 by rank, L(z) infinite, and "
            "a group's ‖J_E∘D − I‖ at least 1."
        )
    if not all(table.status("complete").all() for table in tables):
        notes.append(
            f"Images of more than {DENSE_DIMENSIONS:,} numbers have the leading {values} singular values iterated (all "
            f"of them for groups of up to {MAX_STEPS} latents): other groups' singular values, rank, least KL and "
            "‖J_E∘D − I‖ are at least the numbers stated, and their smallest singular values are not known."
        )
    if not all((table.status("converged") * table.status("composite_converged")).all() for table in tables):
        notes.append(
            f"Some iterated singular values still have residuals above {tolerance:g} of the largest after {MAX_STEPS} "
            "steps (`converged` and `composite_converged` in the spectra)."
        )
    notes.append(
        f"Singular values below {RANK_TOLERANCE:g} of the largest count as 0; the least KL(p(z|x)‖p(z)) holds for the "
        "decoder linearised at z with Gaussian noise of decoder_sigma, each group's given all others."
    )
    return notes
