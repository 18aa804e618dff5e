"""What evaluation reads, and the noise that goes with it: both keyed by example, never by batch or process.

Shapes: B images, C channels, H W resolution.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.model.noise import PassNoise, noise_key

POSTERIOR_NOISE = "evaluate"  # purpose of a noise key: all measurements of posterior latents share these draws
Examples = Sequence[int] | npt.NDArray[np.int64]


class EvaluationBatch(Protocol):
    """Images and which examples of their split they are, as `datasets.loader.Batch` has them."""

    @property
    def pixels(self) -> Tensor:
        """(B, C, H, W) uint8."""

    @property
    def indices(self) -> npt.NDArray[np.int64]:
        """(B,) numbers of the examples."""


class ExampleNoise:
    """The noise of one pass over some examples: that of ("purpose", seed, example), wherever the example turns up.

    Args:
        model: gives shapes and device.
        purpose: names the draw; other purposes have independent noise.
        seed: of the evaluation.
        buffers: `prior` and `image` as `PassNoise` takes them.
    """

    def __init__(self, model: LatentModel, purpose: str, seed: int, **buffers: bool) -> None:
        self._model = model
        self._purpose = purpose
        self._seed = seed
        self._buffers: dict[str, Any] = {"prior": False, "image": False} | buffers
        self._rows = 0
        self._noise: PassNoise | None = None

    def draw(self, examples: Examples) -> PassNoise:
        """Noise for B examples, one row each; valid until the next call."""
        if self._noise is None or len(examples) != self._rows:  # only a split's last batch has another length
            self._noise = PassNoise(self._model, len(examples), self._model.device, **self._buffers)
            self._rows = len(examples)
        self._noise.draw_rows([noise_key(self._purpose, self._seed, int(example)) for example in examples])
        return self._noise


def levels_for(model: LatentModel, pixels: Tensor) -> Tensor:
    """Stored pixels (B, C, H, W) uint8 → levels in the model's own number format, on its device."""
    return pixels.to(model.weight)
