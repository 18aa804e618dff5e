"""`vdvae-lr verify`: a published or bundled model's bound on the given data, against the number published for it."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import tyro

from vdvae_lr.cli.compare import COMPARISON_NAME
from vdvae_lr.cli.shared.loaded_models import check_processes_agree
from vdvae_lr.cli.shared.progress import ConsoleTracker, plain_console
from vdvae_lr.datasets.catalogue import DataSettings, open_splits
from vdvae_lr.datasets.inventory import inventory_lines
from vdvae_lr.datasets.loader import evaluation_batches
from vdvae_lr.datasets.sampler import evaluation_shards
from vdvae_lr.errors import InputError, nearest_name_hint
from vdvae_lr.evaluation.bound import Bound, evaluate_bound
from vdvae_lr.evaluation.document import read_evaluations
from vdvae_lr.files.bundled import bundled_folder
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.hub.sources import WeightSettings
from vdvae_lr.hub.vdvae.published import PUBLISHED, published_file
from vdvae_lr.model.precision import float32_convolutions
from vdvae_lr.processes.world import World, joined_world
from vdvae_lr.setting_checks import AtOnce, CountOrNone, PathText, check_settings

EXIT_DIFFERENT = 3
_STANDARD_ERRORS = 3.0
_SAME_IMAGES = 0.001
"""Share of the bound by which other noise may move it on the same images; one deviation on 200 of them: 0.06%."""


@dataclass(frozen=True)
class VerifySettings:
    """Check that a published model loads whole and scores what it was published with."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """A published name (ffhq256, cifar10-seed0, …) or a bundled one (fashion)."""
    data_root: PathText = ""
    """Folder that holds the data set's files; empty: data/NAME."""
    examples: CountOrNone = 0
    """Measure on the first so many test images only; 0: all of them, as published."""
    batch: AtOnce = 8
    """Images at once on one process; changes no number."""
    seed: int = 0
    """Of the posterior's noise."""
    num_workers: CountOrNone = 0
    """Processes that read images ahead."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute, in float32."""
    weights: tyro.conf.OmitArgPrefixes[WeightSettings] = dataclasses.field(default_factory=WeightSettings)

    def __post_init__(self) -> None:
        """Refuse what cannot be measured; raises InputError."""
        check_settings(self)
        if self.examples == 1:
            raise InputError("examples is 1; chance can be judged from 2 images on (0: all of them).")


@dataclass(frozen=True)
class Claim:
    """What a model is said to score: −ELBO on a test split, in a unit, to a last digit."""

    dataset: str
    bound: float
    unit: Literal["nats/dim", "bits/dim"]
    last_digit: float

    def difference(self, measured: Bound, whole: bool) -> tuple[float, float, float]:
        """The measured bound in the claim's unit, how far it lies from the claim, and how far chance may carry it.

        On the whole split the images are those of the claim, and only the posterior's noise and the arithmetic differ.
        """
        nats = self.unit == "nats/dim"
        value = measured.negative_elbo if nats else measured.negative_elbo_bits_per_dim
        error = measured.standard_error if nats else measured.standard_error_bits_per_dim
        chance = _SAME_IMAGES * self.bound if whole else _STANDARD_ERRORS * error
        return value, value - self.bound, self.last_digit / 2 + chance


def claim_of(name: str) -> Claim:
    """What the model called `name` is said to score.

    Raises:
        InputError: no model of that name has a published number.
    """
    if name in PUBLISHED:
        model = PUBLISHED[name]
        return Claim(model.dataset, model.bound, model.unit, model.last_digit)
    folder = bundled_folder("models")
    bundled = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if name in bundled:
        (evaluation,) = read_evaluations(folder / name / COMPARISON_NAME).values()
        bound = evaluation.quantity("negative_elbo")
        assert bound is not None and bound.total is not None
        return Claim(evaluation.dataset, bound.total.value, "nats/dim", 0.0)
    known = [*bundled, *PUBLISHED]
    raise InputError(
        f"no number was published for '{name}'{nearest_name_hint(name, known)}; verify knows {', '.join(known)}."
    )


def run(settings: VerifySettings) -> int:
    """Measure and report; returns 0 where the bound agrees, `EXIT_DIFFERENT` where it does not.

    Raises:
        InputError: weights or data that cannot be used, or a name without a published number.
    """
    claim = claim_of(settings.name)
    with joined_world(settings.device) as world, float32_convolutions():
        return _verify(settings, claim, world)


def _verify(settings: VerifySettings, claim: Claim, world: World) -> int:
    console = plain_console(world.is_main)
    model = world.patiently(partial(_load, settings), "loading weights")
    check_processes_agree(model, settings.name, world)
    parameters = [parameter.numel() for parameter in model.parameters()]
    console.print(f"{settings.name}: {len(parameters):,} tensors, {sum(parameters):,} parameters, each accounted for")
    config = model.config
    data = DataSettings(dataset=claim.dataset, data_root=settings.data_root, num_workers=settings.num_workers)
    splits = open_splits(data, config.image_size, config.image_channels)
    for line in inventory_lines(splits):
        console.print(line, soft_wrap=True)
    images = splits.test
    count = min(settings.examples or len(images), len(images))
    what = f"measuring the bound on {count:,} of {len(images):,} test images of {claim.dataset}"
    shards = evaluation_shards(count, settings.batch, world.rank, world.size)
    batches = evaluation_batches(images, shards, settings.num_workers, world.device.type == "cuda")
    tracked = ConsoleTracker(console)(batches, len(shards), what)
    measured = evaluate_bound(model.to(world.device), tracked, seed=settings.seed, world=world)
    value, difference, chance = claim.difference(measured, count == len(images))
    agrees = abs(difference) <= chance
    why = f"{_STANDARD_ERRORS:g} standard errors over images" if count < len(images) else "other noise (0.1%)"
    console.print(
        f"published {claim.bound:g} {claim.unit}, measured {value:.4f}: {difference:+.4f} "
        f"({100 * difference / claim.bound:+.2f}%)"
    )
    console.print(f"{'agrees' if agrees else 'DIFFERS'}: rounding and {why} make {chance:.4f} {claim.unit}")
    return 0 if agrees else EXIT_DIFFERENT


def _load(settings: VerifySettings) -> VDVAE:
    """The model that the claim is about, whatever else is called so in this folder."""
    if settings.name in PUBLISHED:
        return VDVAE.from_pretrained(published_file(settings.name, "model-ema", settings.weights.mirror))
    return VDVAE.from_pretrained(bundled_folder("models") / settings.name)
