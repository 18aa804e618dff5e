"""The information part of an evaluation: what images say about their latents, by group, resolution and in total.

docs/evaluation.md, "Information" and "Latent reconstruction", defines every key.
"""

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.comparison import check_comparable
from vdvae_lr.evaluation.information import measure_information_from_samples
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.mutual_information import measure_mutual_information
from vdvae_lr.evaluation.quantities import Quantity
from vdvae_lr.evaluation.recovery import measure_recovery
from vdvae_lr.model.latent_model import LatentModel


def check_information(measuring: Measuring, mixture_batch: int, mixture_images: int) -> None:
    """Refuse, before long work, what mutual information cannot be measured on.

    Raises:
        InputError: fewer images than a batch's mixture, a mixture of one image, or a negative number.
    """
    if mixture_batch < 0 or mixture_batch == 1:
        raise InputError(
            f"mixture_batch is {mixture_batch}; it must be 2 or more, or 0 to leave out that mutual information."
        )
    if mixture_images < 0:
        raise InputError(f"mixture_images is {mixture_images}; it must be 0 or more.")
    images = measuring.count()
    if images < mixture_batch:
        raise InputError(
            f"{images} images cannot fill a mixture of {mixture_batch}; evaluate on more, or lower mixture_batch."
        )


def measure_information(
    model: LatentModel, measuring: Measuring, *, before: LatentModel | None, mixture_batch: int, mixture_images: int
) -> list[Quantity]:
    """Everything of this part.

    Args:
        model: on the world's device, as `before` is.
        measuring: the split and the processes; all of them must call this.
        before: the model as it was before fine-tuning, whose encoder reads the same images; None leaves that out.
        mixture_batch, mixture_images: as `measure_mutual_information` has them.

    Raises:
        InputError: as `check_information`; or `before` has another architecture.
    """
    check_information(measuring, mixture_batch, mixture_images)
    if before is not None:
        check_comparable({"the evaluated one": model, "before": before})
    return [
        *measure_information_from_samples(model, measuring, before),
        *measure_recovery(model, measuring, before),
        *measure_mutual_information(model, measuring, mixture_batch=mixture_batch, mixture_images=mixture_images),
    ]
