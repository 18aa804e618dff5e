"""`compare`: several models of one architecture, measured on the same held-out images with the same noise.

    vdvae-lr compare before=fashion LR=runs/lr no-LR=runs/plain --split test --out comparison

prints a table and leaves it as comparison.json, with reconstructions.png, samples.png and noise_response.png, in --out.
"""

from dataclasses import dataclass
from pathlib import Path

from vdvae_lr.cli.shared.held_out_images import first_pixels
from vdvae_lr.cli.shared.models_on_images import ModelsOnImages, find_models, named_sources
from vdvae_lr.cli.shared.output_folder import check_writable
from vdvae_lr.cli.shared.progress import ConsoleTracker, plain_console
from vdvae_lr.datasets.sources import ImageSource
from vdvae_lr.evaluation.comparison import measure_model
from vdvae_lr.files.network_errors import without_secrets
from vdvae_lr.files.whole_file import write_whole
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.model.precision import float32_convolutions
from vdvae_lr.pictures.comparison_pictures import comparison_pictures
from vdvae_lr.pictures.picture_grid import save_png
from vdvae_lr.processes.world import World, joined_world
from vdvae_lr.report.comparison_table import Comparison, comparison_json, comparison_table
from vdvae_lr.setting_checks import CountOrNone


@dataclass(frozen=True, kw_only=True)
class CompareSettings(ModelsOnImages):
    """Compare models on held-out images: bound, Latent Reconstruction, information, active latents, noise response."""

    out: Path = Path("comparison")
    """Folder for comparison.json and the pictures."""
    content_dimensions: CountOrNone = 0
    """Also state the bound on this many dimensions an image: 784 for 28x28 images padded to 32x32; 0: do not."""


def run(settings: CompareSettings) -> None:
    """Measure, print and save; raises InputError for models, data or a folder that cannot be used."""
    sources = named_sources(settings.models)
    with joined_world(settings.device) as world, float32_convolutions():
        _compare(settings, sources, world)


def _compare(settings: CompareSettings, sources: dict[str, str], world: World) -> None:
    models = find_models(settings, sources, world)
    console = plain_console(world.is_main)
    found = settings.find(models, console)
    source = found.source
    check_writable(settings.out, world)
    track = ConsoleTracker(console)
    measured = {
        name: measure_model(model, settings.measuring(source, world, track, name)) for name, model in models.items()
    }
    if world.is_main:
        comparison = Comparison(
            measured,
            {name: without_secrets(word) for name, word in sources.items()},
            found.dataset,
            settings.split,
            min(settings.examples or len(source), len(source)),
            settings.seed,
            next(iter(models.values())).dimensions,
            settings.content_dimensions,
            found.inventory,
        )
        console.print(comparison_table(comparison))
        write_whole(settings.out / "comparison.json", comparison_json(comparison).encode())
        _save_pictures(models, source, settings)
        console.print(f"saved in {settings.out}")


def _save_pictures(models: dict[str, VDVAE], source: ImageSource, settings: CompareSettings) -> None:
    if settings.images == 0:
        return
    pixels = first_pixels(source, settings.images)
    for name, picture in comparison_pictures(models, pixels, settings.seed).items():
        save_png(picture, settings.out / name)
