"""What commands on several models share beyond their images: which models."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated

import tyro

from vdvae_lr.cli.shared.config import model_settings
from vdvae_lr.cli.shared.held_out_images import HeldOutImages
from vdvae_lr.cli.shared.loaded_models import load_models
from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.comparison import check_comparable
from vdvae_lr.files.paths import expanded
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.processes.world import World


@dataclass(frozen=True, kw_only=True)
class ModelsOnImages(HeldOutImages):
    """Several models and the held-out images that they are measured on."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME=RUN_OR_WEIGHTS")]
    """Models, each as NAME=SOURCE: a run's folder, a folder or file of weights, or a bundled or published name."""


def named_sources(words: Iterable[str]) -> dict[str, str]:
    """`NAME=SOURCE` words as a mapping, in order.

    Raises:
        InputError: no word, one without NAME= or SOURCE, or a name given twice.
    """
    sources: dict[str, str] = {}
    for word in words:
        name, _, source = word.partition("=")
        if not name or not source:
            raise InputError(f"'{word}' names no model; write NAME=RUN_OR_WEIGHTS, such as before=fashion.")
        if name in sources:
            raise InputError(f"two models are called '{name}'; give each its own name.")
        sources[name] = expanded(source)
    if not sources:
        raise InputError("there is no model to measure; give at least one as NAME=RUN_OR_WEIGHTS.")
    return sources


def find_models(settings: ModelsOnImages, sources: Mapping[str, str], world: World) -> dict[str, VDVAE]:
    """The models by name, on the world's device; all processes must call this.

    Raises:
        InputError: weights that cannot be used, or models of different architectures.
    """
    models = load_models(sources, model_settings(settings.hps), settings.weights, world)
    check_comparable(models)
    return models
