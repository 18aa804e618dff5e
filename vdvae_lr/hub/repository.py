"""From what a person calls some weights to the weights: a bundled name, a file, a folder, or a training run.

| given                                     | what it is                                                      |
|-------------------------------------------|-----------------------------------------------------------------|
| `fashion`                                 | a model that ships with this program (`models/`)                |
| `ffhq256`, `cifar10-seed0`, …             | a published VDVAE: its file `*-model-ema.th` in `weights_dir`   |
| `DIR` with config.json, model.safetensors | weights saved by this program                                   |
| `DIR` of a run, or one of its checkpoints | the EMA weights of the newest, or of that, checkpoint           |
| `FILE.th`                                 | published format; its settings come from the preset             |
| `FILE.safetensors`                        | our names; settings from the config.json beside it, else preset |
"""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vdvae_lr.bundled import bundled_folder
from vdvae_lr.errors import InputError, nearest_name_hint
from vdvae_lr.hub.openai import from_published, read_tensors
from vdvae_lr.hub.weight_folder import CONFIG_NAME, WEIGHTS_NAME, check_fit, read_config, read_weights
from vdvae_lr.model.vae import VDVAE, VAEConfig

CHECKPOINTS = "checkpoints"
EMA_NAME = "ema.safetensors"
_SERVER = "https://openaipublic.blob.core.windows.net/very-deep-vaes-assets"
_CIFAR10_ITERATIONS = (900_000, 1_050_000, 650_000, 1_050_000)

PUBLISHED: dict[str, str] = {
    "ffhq256": f"{_SERVER}/vdvae-assets/ffhq256-iter-1700000-model-ema.th",
    "ffhq1024": f"{_SERVER}/vdvae-assets/ffhq1024-iter-1700000-model-ema.th",
    "imagenet32": f"{_SERVER}/vdvae-assets/imagenet32-iter-1700000-model-ema.th",
    "imagenet64": f"{_SERVER}/vdvae-assets-2/imagenet64-iter-1600000-model-ema.th",
} | {
    f"cifar10-seed{seed}": f"{_SERVER}/vdvae-assets-2/cifar10-seed{seed}-iter-{iterations}-model-ema.th"
    for seed, iterations in enumerate(_CIFAR10_ITERATIONS)
}
"""Where the published EMA weights lie (DESIGN §4); the code is MIT, the weights' own terms are not stated."""


@dataclass(frozen=True)
class WeightSource:
    """Weights that exist on this machine, and the settings that came with them, if any did."""

    path: Path
    config: VAEConfig | None
    dataset: str | None


@dataclass(frozen=True)
class Pretrained:
    """A model in evaluation mode with its (EMA) weights, and the name of the data set it was trained on."""

    model: VDVAE
    dataset: str | None


def find_weights(name: str, weights_dir: str = "") -> WeightSource:
    """Resolve `name` without reading the tensors.

    Raises:
        InputError: nothing of that name, with what to do about it.
    """
    path = Path(name)
    if path.is_dir():
        return _in_folder(path)
    if path.suffix in (".th", ".pt", ".safetensors"):
        if not path.is_file():
            raise InputError(f"weights file {path} does not exist; check the path.")
        if path.suffix == ".safetensors" and (path.parent / CONFIG_NAME).is_file():
            return WeightSource(path, *read_config(path.parent))
        return WeightSource(path, None, None)
    models = bundled_folder("models")
    if (models / name / CONFIG_NAME).is_file():
        return _in_folder(models / name)
    if name in PUBLISHED:
        return _published(name, weights_dir)
    known = [*sorted(folder.name for folder in models.iterdir() if folder.is_dir()), *PUBLISHED]
    raise InputError(
        f"there are no weights '{name}'{nearest_name_hint(name, known)}; "
        f"give a file, a folder, a training run, or one of {', '.join(known)}."
    )


def _in_folder(folder: Path) -> WeightSource:
    if (folder / CHECKPOINTS).is_dir():
        newest = max((folder / CHECKPOINTS).glob("step-*"), default=None)
        if newest is None:
            raise InputError(f"run {folder} has no checkpoint yet; let it save one, or choose other weights.")
        folder = newest
    for name in (EMA_NAME, WEIGHTS_NAME):
        if (folder / name).is_file():
            return WeightSource(folder / name, *read_config(folder))
    raise InputError(f"folder {folder} holds no {WEIGHTS_NAME}; give a folder of weights or a training run.")


def _published(name: str, weights_dir: str) -> WeightSource:
    url = PUBLISHED[name]
    path = Path(weights_dir or "weights") / url.rpartition("/")[2]
    if not path.is_file():
        raise InputError(
            f"the published weights '{name}' are not at {path}; "
            f"fetch them with: curl --create-dirs -C - -o {path} {url} "
            "(or start from scratch with --pretrained none)."
        )
    return WeightSource(path, None, None)


def read_state(source: WeightSource, model: VDVAE) -> dict[str, Tensor]:
    """The tensors of `source` under `model`'s parameter names, checked to fit exactly (raises InputError)."""
    if source.path.suffix != ".safetensors":
        return from_published(model, read_tensors(source.path), str(source.path))
    state = read_weights(source.path)
    check_fit({name: tuple(parameter.shape) for name, parameter in model.named_parameters()}, state, str(source.path))
    return state


def load_pretrained(name: str, config: VAEConfig | None = None, weights_dir: str = "") -> Pretrained:
    """A ready model by name or path; `config` is for weights that come without settings (published `.th` files).

    Raises:
        InputError: no such weights, damaged ones, or settings neither given nor found.
    """
    source = find_weights(name, weights_dir)
    chosen = source.config or config
    if chosen is None:
        raise InputError(
            f"{source.path} comes without its model's settings; name the preset it was trained with (--hps)."
        )
    model = VDVAE(chosen)
    model.load_state_dict(read_state(source, model))
    return Pretrained(model.eval().requires_grad_(False), source.dataset)
