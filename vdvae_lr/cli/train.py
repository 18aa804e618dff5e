"""`train`: from a command line to a run's exit code."""

import sys
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.table import Table

from vdvae_lr.cli.shared.config import resolve_settings
from vdvae_lr.hub.pretrained import VDVAE, PretrainedModel, model_class
from vdvae_lr.losses.expectation import notices
from vdvae_lr.processes.failures import ends_with_exit_code, take_debug_flag
from vdvae_lr.processes.world import joined_world
from vdvae_lr.training.loop import train
from vdvae_lr.training.settings import Settings


@ends_with_exit_code
def main(
    arguments: Sequence[str] | None = None,
    program: str = "train.py",
    model: type[PretrainedModel] = VDVAE,
    example: str = "",
) -> int:
    """Run `train` with a command line (default: this process's) and a class of models; returns the exit code."""
    words = take_debug_flag(sys.argv[1:] if arguments is None else arguments)
    settings, pretrained = resolve_settings(words, program, model, example)
    if settings.run.dry_run:
        describe(settings, Console())
        return 0
    with joined_world(settings.run.device, settings.run.stuck_after_s) as world:
        return train(settings, world, pretrained)


def describe(settings: Settings, console: Console) -> None:
    """Print the resolved settings, the model's size and the schedule; reads no data and no weights."""
    with torch.device("meta"):
        model = model_class(settings.model)(settings.model)
    table = Table("setting", title="Resolved settings", title_justify="left")
    table.add_column("value", overflow="fold")
    for name, value in settings.flat().items():
        table.add_row(name, str(value))
    console.print(table)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    latents = sum(channels * height * width for channels, height, width in model.latent_shapes)
    groups, dimensions = len(model.latent_shapes), model.dimensions
    console.print(
        f"Model: {parameters:,} parameters; {groups} latent group{'s' * (groups > 1)}, {latents:,} latents an image, "
        f"{latents / dimensions:.2g} for each of its {dimensions:,} numbers."
    )
    console.print(_schedule(settings))
    at, prior = settings.optimisation.lr_at, model.standard_prior
    for sentence in notices(settings.objective, settings.run.iters, at, standard_prior=prior):
        console.print(sentence)


def _schedule(settings: Settings) -> str:
    run, objective, optimisation = settings.run, settings.objective, settings.optimisation
    iteration_images = run.images_of_a_step(processes=1)
    each = "" if run.global_batch else " for each process"
    rise = f"0 → {optimisation.lr:g} over {optimisation.warmup_iters:,}" if optimisation.warmup_iters else None
    final = "" if optimisation.lr_final_share == 1 else f", then to {optimisation.lr * optimisation.lr_final_share:g}"
    alpha = "no Latent Reconstruction (alpha_T 0)"
    if objective.uses_lr:
        alpha = f"α 0 → {objective.alpha_T:g} over {objective.alpha_rise(run.iters):,} iterations"
        if objective.alpha_end_iters:
            alpha += f", then to {objective.alpha_end:g} over the last {objective.alpha_end_iters:,}"
    return (
        f"Schedule: {run.iters:,} iterations of {iteration_images} images{each}; "
        f"learning rate {rise or f'{optimisation.lr:g}'}{final}; {alpha}; start from {run.starts[0].name or 'none'}."
    )


if __name__ == "__main__":
    sys.exit(main())
