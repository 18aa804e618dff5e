"""Open the three reference files: our models, with the numbers of the published code."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.hub.vdvae.tensors import from_published
from vdvae_lr.model.vdvae.vae import VAEConfig

FOLDER = Path(__file__).parents[1] / "reference"
NAMES = ("plain_8bit", "low_bit", "custom_widths")
PUBLISHED_MODELS = json.loads((FOLDER / "published_models.json").read_text())


def published_config(settings: dict[str, object], **changes: object) -> VAEConfig:
    """The published settings (an `hps` record) as a VAEConfig."""
    names = ("image_size", "width", "zdim", "enc_blocks", "dec_blocks", "custom_width_str", "no_bias_above")
    names += ("num_mixtures", "bottleneck_multiple")
    low_bit = settings["dataset"] == "ffhq_256"
    chosen = {name: settings[name] for name in names}
    chosen |= {"bits": 5, "likelihood": "published_5bit"} if low_bit else {}
    return VAEConfig(**(chosen | changes))


@dataclass
class ReferenceCase:
    """One reference file: its numbers by name, and the model with which they were computed."""

    numbers: dict[str, np.ndarray]
    model: VDVAE
    dtype: torch.dtype

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.numbers[name])).to(self.dtype)

    def groups(self, prefix: str) -> list[Tensor]:
        return [self.tensor(f"{prefix}/{index:03d}") for index in range(len(self.model.latent_shapes))]

    @property
    def levels(self) -> Tensor:
        return self.tensor("pixels").permute(0, 3, 1, 2)


def load_case(name: str, dtype: torch.dtype) -> ReferenceCase:
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as archive:
        numbers = {key: archive[key] for key in archive.files}
    settings = json.loads(str(numbers["config"]))
    config = published_config(settings, input_shift=-112.8666757481, input_scale=1 / 69.84780273)
    model = VDVAE(config).to(dtype)
    published = {
        key.removeprefix("param/"): torch.from_numpy(v) for key, v in numbers.items() if key.startswith("param/")
    }
    model.load_state_dict(from_published(model, published, name))
    return ReferenceCase(numbers, model, dtype)
