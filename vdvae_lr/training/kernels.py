"""Chooses what computes a run's likelihood on CUDA: the plain formula, or a Triton kernel that proves right and faster.

The kernel was written without a card. So no run relies on it unseen: at the start of a run its values are compared with
the formula's, both are timed, and in any doubt the formula stays.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vdvae_lr.errors import InputError, first_line
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.model.logistic_mixture import Bins, LogisticMixture, WithSlopes
from vdvae_lr.model.vdvae.vae import VeryDeepVAE
from vdvae_lr.processes.world import World

MOST_TIMES_THE_ERROR = 4.0
"""Triton compiles exponentials to approximate instructions. Imitated in its interpreter, they give up to 1.4 times."""
_COMPARED_PIXELS = 4096  # at both ends of the memory; float64 for all would take more memory than a training step
_LEAST_ERROR = 1e-8  # relative to 1 + |value|; float32 resolves 6e-8
_ROUNDS, _CALLS = 3, 10


@dataclass(frozen=True)
class Trial:
    """How a kernel compares with the plain formula."""

    times_the_error: float
    """Its errors against float64, as a multiple of those of the formula in float32."""
    kernel_ms: float
    """Milliseconds of a micro-batch."""
    plain_ms: float

    @property
    def complaint(self) -> str:
        """Why the kernel should not be used, or nothing."""
        if not self.times_the_error <= MOST_TIMES_THE_ERROR:
            return f"the Triton kernel's values differ (errors {self.times_the_error:.3g} times the formula's)"
        if self.kernel_ms >= self.plain_ms:
            return f"the Triton kernel is no faster ({self.kernel_ms:.3g} ms, the formula {self.plain_ms:.3g} ms)"
        return ""


def triton_kernel() -> WithSlopes:
    """The kernel (raises ImportError without Triton)."""
    from vdvae_lr.model.mixture_kernel import with_slopes

    return with_slopes


def choose_kernel(model: LatentModel, images: int, world: World) -> str:
    """Let a model on CUDA compute its likelihood by the Triton kernel, if all processes find it right and faster.

    `images` is the number of images in a micro-batch. Returns a sentence that says what was chosen and why. It is empty
    if there is nothing to choose.
    """
    if world.device.type != "cuda" or not isinstance(model, VeryDeepVAE):
        return ""
    return choose_if_better(model, images, world, triton_kernel)


def choose_if_better(model: VeryDeepVAE, images: int, world: World, load: Callable[[], WithSlopes]) -> str:
    """`choose_kernel`, with the kernel that `load` returns.

    Raises:
        InputError: the kernel left the card unusable.
    """
    complaint = ""
    try:
        kernel = load()
        trial = tried(kernel, model, images)
        complaint = trial.complaint
    except ModuleNotFoundError:
        complaint = "Triton is not installed"
    except Exception as error:  # whatever goes wrong in compiling and launching, the run can do without the kernel
        complaint = f"the Triton kernel fails here ({type(error).__name__}: {first_line(error)})"
        _check_usable(world.device, complaint)
    if world.highest(bool(complaint)):
        return f"Likelihood: plain formula, because {complaint or 'another process cannot use the Triton kernel'}."
    model.mixture_kernel = kernel
    return (
        f"Likelihood: Triton kernel, because its values are right and it takes {trial.kernel_ms:.3g} ms where the "
        f"plain formula takes {trial.plain_ms:.3g} ms."
    )


def _check_usable(device: torch.device, complaint: str) -> None:
    """After some errors, such as an illegal address, a process can no longer use its card."""
    try:
        torch.zeros((), device=device).item()
    except RuntimeError:
        raise InputError(f"{complaint}, and the card no longer answers; start again with --kernels plain.") from None


@torch.no_grad()
def tried(kernel: WithSlopes, model: VeryDeepVAE, images: int) -> Trial:
    """Compare a kernel with the plain formula, on a micro-batch of random numbers and pixels."""
    parameters, image = _inputs(model, images)
    error = _times_the_error(kernel(parameters, image, model.bins), parameters, image, model.bins)
    plain = LogisticMixture(parameters, image.shape[1], model.bins)
    ways = (lambda: kernel(parameters, image, model.bins), lambda: plain.with_slopes(image))
    times = _milliseconds(ways, image.device)
    return Trial(error, *times)


def _inputs(model: VeryDeepVAE, images: int) -> tuple[Tensor, Tensor]:
    """Random parameters and images of a micro-batch, laid out as a model has them on CUDA, which reach every branch."""
    device, (channels, height, width) = model.device, model.image_shape
    numbers, components = model.mixture_output.out_channels, model.config.num_mixtures
    generator = torch.Generator(device).manual_seed(0)  # its own: a run's draws stay what they are
    parameters = torch.randn(images, height, width, numbers, generator=generator, device=device).permute(0, 3, 1, 2)
    log_scales = parameters[:, components:].unflatten(1, (channels, -1, components))[:, :, 1]
    log_scales.mul_(3).sub_(3)  # below the smallest one, and wider than the range of pixels
    image = torch.randn(images, height, width, channels, generator=generator, device=device).permute(0, 3, 1, 2)
    return parameters, image.clamp(-1, 1)  # a third lies in the open bins


def _times_the_error(found: tuple[Tensor, Tensor], parameters: Tensor, image: Tensor, bins: Bins) -> float:
    """Errors against float64 as a multiple of the plain formula's in float32: the largest of worst and mean ones."""
    rows = -(-_COMPARED_PIXELS // image.shape[3])
    largest = 0.0
    for which, part in ((0, slice(None, rows)), (-1, slice(-rows, None))):
        numbers, pixels = parameters[which, None, :, part], image[which, None, :, part]
        ours = [result[which, None, ..., part, :] for result in found]
        exactly = LogisticMixture(numbers.double(), image.shape[1], bins)
        plain = LogisticMixture(numbers, image.shape[1], bins).with_slopes(pixels)
        sure = ~exactly.rounding_decides(pixels)
        for our, formula, exact in zip(ours, plain, exactly.with_slopes(pixels), strict=True):
            errors = [(result - exact).abs() / (1 + exact.abs()) * sure for result in (our, formula)]
            for statistic in (torch.mean, torch.max):
                mine, its = (float(statistic(error)) for error in errors)
                largest = max(largest, mine / max(its, _LEAST_ERROR)) if math.isfinite(mine) else math.inf
    return largest


def _milliseconds(ways: Sequence[Callable[[], object]], device: torch.device) -> list[float]:
    """The time of each way on an otherwise idle device: the best of rounds in which they take turns."""
    best = [math.inf] * len(ways)
    for _ in range(_ROUNDS):
        for index, way in enumerate(ways):
            _wait_for(device)
            start = time.perf_counter()
            for _ in range(_CALLS):
                way()
            _wait_for(device)
            best[index] = min(best[index], 1000 * (time.perf_counter() - start) / _CALLS)
    return best


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
