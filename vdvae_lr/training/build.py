"""From settings to a training step that can run: model, weights to start from, optimiser, precision, compilation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.files.paths import exists, is_file
from vdvae_lr.hub.openai_optimiser import read_optimiser_state
from vdvae_lr.hub.pretrained import model_class
from vdvae_lr.hub.published import PUBLISHED, published_file
from vdvae_lr.hub.sources import WeightSettings, WeightSource, check_same_settings, find_weights, read_state
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.processes.world import World
from vdvae_lr.training.optim import Optimiser
from vdvae_lr.training.settings import RunSettings, Settings
from vdvae_lr.training.step import Precision, TrainingStep
from vdvae_lr.training.weights import FlatWeights

_COMPILED_SHAPES = 256  # blocks differ by resolution, width, pooling and pass; beyond torch's own 8 it goes eager


@dataclass(frozen=True)
class StartWeights:
    """Where the weights, their average and the optimiser's state come from; None means the initialisation."""

    values: WeightSource | None = None
    average: WeightSource | None = None
    optimiser: Path | None = None


def find_start_weights(run: RunSettings, weights: WeightSettings, config: Any) -> StartWeights:
    """Resolve `pretrained`, or the published style's restore paths, and fetch what is not here, before any work.

    Raises:
        InputError: weights that are not there, or whose settings differ from the run's.
    """
    restored = run.restore_path or run.restore_ema_path
    if not restored and run.pretrained == "none":
        if run.restore_optimizer_path:
            raise InputError("restore_optimizer_path needs the weights it belongs to; name them with --restore_path.")
        return StartWeights()
    optimiser = _find_optimiser_state(run.restore_optimizer_path, weights)
    if restored:
        raw = find_weights(run.restore_path, weights, ema=False) if run.restore_path else None
        averaged = find_weights(run.restore_ema_path, weights) if run.restore_ema_path else raw
        start = StartWeights(raw or averaged, averaged, optimiser)
    else:
        pretrained = find_weights(run.pretrained, weights)
        start = StartWeights(pretrained, pretrained, optimiser)
    for source in (start.values, start.average):
        theirs = source.known_config if source is not None else None
        if source is not None and theirs is not None:
            check_same_settings(source, theirs, config)
    return start


def _find_optimiser_state(name: str, weights: WeightSettings) -> Path | None:
    if not name:
        return None
    if name in PUBLISHED and not exists(Path(name)):
        return published_file(name, "opt", weights.mirror)
    if not is_file(Path(name)):
        raise InputError(f"optimiser state {name} does not exist; check --restore_optimizer_path.")
    return Path(name)


def micro_batches(run: RunSettings, world_size: int) -> int:
    """Micro-batches of one iteration over all processes.

    Raises:
        InputError: `global_batch` is no multiple of what the processes take at once.
    """
    at_once = run.n_batch * world_size
    total = run.global_batch or at_once
    if total % at_once:
        raise InputError(
            f"global_batch {total} is no multiple of n_batch {run.n_batch} × {world_size} process(es); "
            f"choose an --n_batch that divides {total / world_size:g}, another --global_batch, or, for a run that goes "
            "on and keeps both, another number of processes."
        )
    return total // run.n_batch


def resolve_precision(run: RunSettings, device: torch.device) -> Precision:
    """`auto` is bf16 on CUDA, fp16 on cards too old for it, and fp32 elsewhere."""
    if run.precision != "auto":
        return run.precision
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
    model.set_activation_checkpointing(run.checkpoint_activations)
    precision = resolve_precision(run, world.device)
    weights = FlatWeights(model)
    if states is not None:
        weights.load(weights.values.data, states[0])
    optimiser = Optimiser(weights, settings.optimisation, run_iterations=run.iters, loss_scaling=precision == "fp16")
    if states is not None:
        weights.load(optimiser.ema.average, states[1])
    if start.optimiser is not None:
        optimiser.load_moments(*read_optimiser_state(start.optimiser, model))
    if states is not None and not world.agree(optimiser.checksum()):
        name = run.restore_path or run.restore_ema_path or run.pretrained
        raise InputError(
            f"the processes found different weights called '{without_secrets(name)}'; give one --revision, or let all "
            "read the same folder."
        )
    if run.compile:
        torch._dynamo.config.recompile_limit = _COMPILED_SHAPES
        for part in model.compile_parts():
            part.compile(dynamic=False)
    return TrainingStep(
        model,
        optimiser,
        settings.objective,
        world,
        n_batch=run.n_batch,
        micro_batches=micro_batches(run, world.size),
        seed=run.seed,
        precision=precision,
        cuda_graph=run.cuda_graph,
    )


def _read_states(start: StartWeights, model: LatentModel) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None:
    if start.values is None or start.average is None:
        return None
    values = read_state(start.values, model)
    return values, values if start.average == start.values else read_state(start.average, model)
