"""`sample`: any number of pictures from the prior, made a batch at a time.

On a CUDA card the next batch begins before the last one is read, so that the card does not wait for Python. Many
batches replay a CUDA graph.

Shapes: B pictures, C channels (1 or 3), H W resolution.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.batches import ExampleNoise
from vdvae_lr.model.latent_model import DecodedImage, LatentModel
from vdvae_lr.model.noise import PassNoise
from vdvae_lr.pictures.group_temperatures import Temperature, group_temperatures
from vdvae_lr.pictures.images import SAMPLES_NOISE, Pictures, check_choice, check_made, in_batches, level_tensor
from vdvae_lr.processes.cuda_graph import CheckedGraph

T = TypeVar("T")
SamplePrecision = Literal["auto", "fp32", "bf16"]
_FEWEST_BATCHES = 5  # for a graph: to capture and check it takes as long as about three batches
_GRAPH_TOLERANCE = 1.0  # mean difference in levels; bf16 changes pictures by 0.3, and pictures of other noise by 46


def sample(
    model: LatentModel,
    count: int,
    *,
    temperature: Temperature = 1.0,
    seed: int = 0,
    image: DecodedImage | None = None,
    batch: int = 32,
    precision: SamplePrecision = "auto",
) -> Pictures:
    """Pictures from the prior: (count, H, W, C) uint8.

    Args:
        count: number of pictures.
        temperature: factor of the prior's scale: a number, a number for each group, or text such as
            `"16x16:0.8,32x32:0.7"`.
        seed: seed of the noise. Picture i is the same for every `count` on one kind of device, up to rounding.
        image: sample: drawn from p(x|z), as in the published code; mean: the likelihood's mean, which has no noise of
            single pixels; None: as the model has it, which is sample for a VDVAE.
        batch: number of pictures made at once, for memory and time. It changes pictures by rounding only.
        precision: number format of the convolutions; auto: bf16 for a VDVAE on a CUDA card that has it, else fp32.

    Raises:
        InputError: `count` or `batch` is below 1, a choice is unknown, or the temperature cannot be used or is so high
            that the decoder makes no image.
    """
    return np.concatenate(list(sample_batches(model, count, temperature, seed, image, batch, precision)))


def sample_batches(
    model: LatentModel,
    count: int,
    temperature: Temperature,
    seed: int,
    image: DecodedImage | None,
    batch: int,
    precision: SamplePrecision = "auto",
    *,
    cuda_graph: bool = True,
) -> Iterator[Pictures]:
    """The pictures of `sample`, at most `batch` at a time, so that any number of them fits in memory.

    `cuda_graph` allows the use of a CUDA graph on a card, if there are enough batches.
    """
    if image is not None:
        check_choice("image", image, DecodedImage)
    check_choice("precision", precision, SamplePrecision)
    if count < 1:
        raise InputError(f"count is {count}; it must be 1 or more.")
    factors = group_temperatures(temperature, model.resolutions)
    parts = in_batches(range(count), batch)
    on_card = model.device.type == "cuda"
    graph = cuda_graph and on_card and count > (_FEWEST_BATCHES - 1) * batch
    drawing = _Drawing(model, factors, seed, image or model.sample_shows, _autocast(model, precision), graph)
    return _results(map(drawing.begin, parts), ahead=int(on_card))


class _Drawing:
    """Draws batches from the prior. With `graph` all batches use the buffers of the first one."""

    def __init__(
        self,
        model: LatentModel,
        factors: tuple[float, ...],
        seed: int,
        image: DecodedImage,
        autocast: Callable[[], AbstractContextManager[object]],
        graph: bool,
    ) -> None:
        self._model = model
        self._factors = factors
        self._image: DecodedImage = image
        self._autocast = autocast
        self._draws = ExampleNoise(model, SAMPLES_NOISE, seed, prior=True, image=image == "sample")
        self._noise: PassNoise | None = None
        self._keeps_buffers = graph
        self._pass: Callable[[], tuple[Tensor, Tensor]] = (
            CheckedGraph(self._decoded, _alike) if graph else self._decoded
        )

    @torch.inference_mode()
    def begin(self, numbers: range) -> Callable[[], Pictures]:
        """Begin to draw the samples with these numbers. The result waits for them, and raises InputError for NaN."""
        if not self._keeps_buffers:
            self._noise = None  # two batches of noise would be a gigabyte more for ffhq256
        with torch.cuda.device_of(self._model.weight):
            self._noise = self._draws.draw(numbers, self._noise)
            levels, broken = self._pass()
            levels = levels[: len(numbers)].to("cpu", non_blocking=True)
            broken = broken.to("cpu", non_blocking=True)
            if self._model.device.type != "cuda":
                return lambda: _checked(levels, broken)
            copied = torch.cuda.Event()
            copied.record()

        def wait() -> Pictures:
            copied.synchronize()
            return _checked(levels, broken).copy()  # frees the page-locked memory that a card copies into

        return wait

    def _decoded(self) -> tuple[Tensor, Tensor]:
        """The levels (B, H, W, C) uint8 of the buffers' noise, and whether some number is NaN."""
        noise = self._noise
        assert noise is not None
        with self._autocast():
            passed = self._model.generate(len(noise.posterior[0]), noise.prior, self._factors)
            image = passed.decoded(self._image, noise.image)
        return level_tensor(self._model.pixel_scale, image), image.isnan().any()


def _checked(levels: Tensor, broken: Tensor) -> Pictures:
    check_made(broken)
    pictures: Pictures = levels.numpy()
    return pictures


def _alike(plain: tuple[Tensor, Tensor], replayed: tuple[Tensor, Tensor]) -> bool:
    difference = (plain[0].float() - replayed[0].float()).abs().mean()
    return bool((difference <= _GRAPH_TOLERANCE) & (plain[1] == replayed[1]))


def _results(begun: Iterable[Callable[[], T]], ahead: int) -> Iterator[T]:
    """The results of what has begun, in order; so many more have then begun."""
    waiting: deque[Callable[[], T]] = deque()
    for result in begun:
        waiting.append(result)
        if len(waiting) > ahead:
            yield waiting.popleft()()
    for result in waiting:
        yield result()


def _autocast(model: LatentModel, precision: SamplePrecision) -> Callable[[], AbstractContextManager[object]]:
    """Makes the context of a pass. Autocast is for float32 weights; a graph must not read weights that it cached."""
    device = model.device.type
    if precision == "auto" and model.samples_in_bf16 and device == "cuda" and model.weight.dtype == torch.float32:
        precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if precision != "bf16":
        return nullcontext
    return lambda: torch.autocast(device, torch.bfloat16, cache_enabled=False)
