"""From settings to a training step that can run: model, weights to start from, optimiser, precision, compilation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.files.paths import exists, is_file
from vdvae_lr.hub.pretrained import model_class
from vdvae_lr.hub.run_record import Start
from vdvae_lr.hub.sources import WeightSource, check_same_settings, find_weights, read_state
from vdvae_lr.hub.vdvae.published import PUBLISHED, published_file
from vdvae_lr.hub.vdvae.tensors import read_optimiser_state
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.model.noise import noise_key
from vdvae_lr.processes.world import World
from vdvae_lr.training.compiling import compile_blocks
from vdvae_lr.training.optim import Optimiser
from vdvae_lr.training.settings import RunSettings, Settings
from vdvae_lr.training.step import Precision, TrainingStep
from vdvae_lr.training.weights import FlatWeights


@dataclass(frozen=True)
class StartWeights:
    """Where the weights, their average and the optimiser's state come from; None: they start anew."""

    values: WeightSource | None = None
    average: WeightSource | None = None
    optimiser: Path | None = None


def find_start_weights(settings: Settings, pretrained: WeightSource | None = None) -> StartWeights:
    """Find the weights that a run starts from, and fetch them if they are not on this machine.

    `pretrained` is what `settings.run.pretrained` stands for, if that is known already. Raises InputError if weights
    do not exist, or if their settings differ from the run's.
    """
    values, average = settings.run.starts
    if not values.name:
        if settings.run.restore_optimizer_path:
            raise InputError("restore_optimizer_path needs the weights it belongs to; name them with --restore_path.")
        return StartWeights()
    optimiser = _find_optimiser_state(settings)
    found = {Start(settings.run.pretrained, ema=True): pretrained} if pretrained is not None else {}
    for start in (values, average):
        if start not in found:
            found[start] = find_weights(start.name, settings.weights, ema=start.ema)
        check_same_settings(found[start], settings.model)
    return StartWeights(found[values], found[average], optimiser)


def _find_optimiser_state(settings: Settings) -> Path | None:
    name = settings.run.restore_optimizer_path
    if not name:
        return None
    if name in PUBLISHED and not exists(Path(name)):
        return published_file(name, "opt", settings.weights.mirror)
    if not is_file(Path(name)):
        raise InputError(f"optimiser state {name} does not exist; check --restore_optimizer_path.")
    return Path(name)


def resolve_precision(run_settings: RunSettings, device: torch.device) -> Precision:
    """The precision that `auto` stands for: bf16 on CUDA, fp16 on cards too old for it, and fp32 elsewhere."""
    if run_settings.precision != "auto":
        return run_settings.precision
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def build_training(settings: Settings, world: World, start: StartWeights) -> TrainingStep:
    """The training step with its weights in place; every process builds the same one.

    Raises:
        InputError: weights that cannot be read or do not fit.
    """
    run = settings.run
    torch.manual_seed(run.seed)
    model: LatentModel = model_class(settings.model)(settings.model)
    states = _read_states(start, model)
    model.to(device=world.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.recompute_activations(run.checkpoint_resolution if run.checkpoint_activations else None)
    precision = resolve_precision(run, world.device)
    weights = FlatWeights(model, _own_part(model) if settings.optimisation.encoder_steps else ())
    if states is not None:
        weights.load(weights.state, states[0])
    optimiser = Optimiser(weights, settings.optimisation, run_iterations=run.iters, loss_scaling=precision == "fp16")
    if states is not None:
        weights.load(optimiser.ema.average, states[1])
        if run.open_at_start:
            _open_latents(model, run.open_at_start, run.seed)
    if start.optimiser is not None:
        optimiser.load_moments(*read_optimiser_state(start.optimiser, model))
    if states is not None and not world.agree(optimiser.checksum()):
        name = without_secrets(run.starts[0].name)
        raise InputError(
            f"the processes found different weights called '{name}'; give one --revision, or let all read the same "
            "folder."
        )
    if run.compile == "on":
        compile_blocks(model)
    return TrainingStep(
        model,
        optimiser,
        settings.objective,
        world,
        n_batch=run.images_at_once,
        micro_batches=run.micro_batches(world.size),
        seed=run.seed,
        precision=precision,
        cuda_graph=run.cuda_graph,
        compiled=run.compile == "on",
    )


def _own_part(model: LatentModel) -> Sequence[str]:
    """Names of the encoder's weights.

    Raises:
        InputError: the model names none.
    """
    names = model.encoder_weights()
    unknown = next((name for name in names if name not in dict(model.named_parameters())), None)
    if unknown is not None:
        raise InputError(
            f"{type(model).__name__}.encoder_weights names '{unknown}', which is no parameter; correct it."
        )
    if names:
        return names
    raise InputError(f"{type(model).__name__} names no weights of an encoder alone; leave --encoder_steps out.")


@torch.no_grad()
def _open_latents(model: LatentModel, size: float, seed: int) -> None:
    """Add noise to each of the model's opening weights: `size` times the RMS of that weight's elements.

    A closed latent's gradient grows with its own weights, so that it opens exponentially from almost nothing.

    Raises:
        InputError: the model names no such weights.
    """
    opening = model.opening_weights()
    if not opening:
        raise InputError(f"{type(model).__name__} names no weights to open; leave --open_at_start out.")
    generator = torch.Generator().manual_seed(noise_key("open_at_start", seed))  # of the CPU: the same on every device
    for weight in opening:
        noise = torch.randn(weight.shape, generator=generator).to(weight)
        weight.add_(noise * (size * weight.square().mean().sqrt()))


def _read_states(start: StartWeights, model: LatentModel) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None:
    if start.values is None or start.average is None:
        return None
    values = read_state(start.values, model)
    return values, values if start.average == start.values else read_state(start.average, model)
