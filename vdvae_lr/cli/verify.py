"""`vdvae-lr verify`: a published or bundled model's bound, compared with the number that was published for it."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import tyro

from vdvae_lr.cli.compare import COMPARISON_NAME
from vdvae_lr.cli.shared.loaded_models import load_model
from vdvae_lr.cli.shared.measured_models import HeldOutImages
from vdvae_lr.cli.shared.progress import plain_console
from vdvae_lr.errors import InputError, nearest_name_hint
from vdvae_lr.evaluation.bound import Bound, evaluate_bound
from vdvae_lr.evaluation.document import read_evaluations
from vdvae_lr.hub.pretrained import VDVAE
from vdvae_lr.hub.sources import LR_PREFIX, WeightSettings, bundled_models
from vdvae_lr.hub.vdvae.published import PUBLISHED, published_file
from vdvae_lr.model.precision import float32_convolutions
from vdvae_lr.processes.world import World, joined_world
from vdvae_lr.setting_checks import AtOnce, CountOrNone, PathText, check_settings

EXIT_DIFFERENT = 3
_STANDARD_ERRORS = 3.0
_SAME_IMAGES = 0.001
"""Share of the bound by which other noise may change it on the same images. On 200 images, the standard deviation of
this change was 0.06% of the bound."""


@dataclass(frozen=True)
class VerifySettings:
    """Check that a published model loads completely and has the bound that was published for it."""

    name: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME")]
    """A published name (ffhq256, cifar10-seed0, …) or a bundled one (fashion)."""
    data_root: PathText = ""
    """Folder that holds the data set's files; empty: data/NAME."""
    examples: CountOrNone = 0
    """Measure on the first so many test images only; 0: all of them, as published."""
    batch: AtOnce = 8
    """Number of images at once on one process; changes no number."""
    seed: int = 0
    """Seed of the posterior's noise."""
    num_workers: CountOrNone = 0
    """Number of processes that read images ahead."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute, in float32."""
    weights: tyro.conf.OmitArgPrefixes[WeightSettings] = dataclasses.field(default_factory=WeightSettings)

    def __post_init__(self) -> None:
        """Refuse settings that cannot be measured (raises InputError)."""
        check_settings(self)
        if self.examples == 1:
            raise InputError("examples is 1; chance can be judged from 2 images on (0: all of them).")


@dataclass(frozen=True)
class Claim:
    """A model's published bound: −ELBO on a test split, in a unit, rounded to a last digit."""

    dataset: str
    bound: float
    unit: Literal["nats/dim", "bits/dim"]
    last_digit: float

    def difference(self, measured: Bound, whole: bool) -> tuple[float, float, float]:
        """The measured bound in the claim's unit, its difference from the claim, and how large that may be by chance.

        On the whole split the images are those of the claim, and only the posterior's noise and the arithmetic differ.
        """
        nats = self.unit == "nats/dim"
        value = measured.negative_elbo if nats else measured.negative_elbo_bits_per_dim
        error = measured.standard_error if nats else measured.standard_error_bits_per_dim
        chance = _SAME_IMAGES * self.bound if whole else _STANDARD_ERRORS * error
        return value, value - self.bound, self.last_digit / 2 + chance


def claim_of(name: str) -> Claim:
    """The published bound of the model called `name` (raises InputError if no number was published for it)."""
    if name in PUBLISHED:
        model = PUBLISHED[name]
        return Claim(model.dataset, model.bound, model.unit, model.last_digit)
    # the numbers of lrvdvae-NAME are of a part of the test split
    bundled = {each: folder for each, folder in bundled_models().items() if not each.startswith(LR_PREFIX)}
    if name in bundled:
        (evaluation,) = read_evaluations(bundled[name] / COMPARISON_NAME).values()
        bound = evaluation.quantity("negative_elbo")
        assert bound is not None and bound.total is not None
        return Claim(evaluation.dataset, bound.total.value, "nats/dim", 0.0)
    known = [*bundled, *PUBLISHED]
    raise InputError(
        f"no number was published for '{name}'{nearest_name_hint(name, known)}; verify knows {', '.join(known)}."
    )


def run(settings: VerifySettings) -> int:
    """Measure and print; returns 0 if the bound agrees with the published one, else `EXIT_DIFFERENT`."""
    claim = claim_of(settings.name)
    with joined_world(settings.device) as world, float32_convolutions():
        return _verify(settings, claim, world)


def _verify(settings: VerifySettings, claim: Claim, world: World) -> int:
    console = plain_console(world.is_main)
    model = load_model(partial(_load, settings), settings.name, world)
    parameters = [parameter.numel() for parameter in model.parameters()]
    console.print(f"{settings.name}: {len(parameters):,} tensors, {sum(parameters):,} parameters, each accounted for")
    chosen = {name: getattr(settings, name) for name in ("data_root", "examples", "batch", "seed", "num_workers")}
    held_out = HeldOutImages(dataset=claim.dataset, **chosen)
    images = held_out.find({settings.name: model}, console, world).images
    measuring = held_out.measuring(images, world, console)
    count, every = measuring.count(), len(images)
    what = f"measuring the bound on {count:,} of {every:,} test images of {claim.dataset}"
    measured = evaluate_bound(model, measuring.batches(what), seed=settings.seed, world=world)
    value, difference, chance = claim.difference(measured, count == every)
    agrees = abs(difference) <= chance
    why = f"{_STANDARD_ERRORS:g} standard errors over images" if count < every else "other noise (0.1%)"
    console.print(
        f"published {claim.bound:g} {claim.unit}, measured {value:.4f}: {difference:+.4f} "
        f"({100 * difference / claim.bound:+.2f}%)"
    )
    console.print(f"{'agrees' if agrees else 'DIFFERS'}: rounding and {why} make {chance:.4f} {claim.unit}")
    return 0 if agrees else EXIT_DIFFERENT


def _load(settings: VerifySettings) -> VDVAE:
    """The model that the claim is about, even if the working folder holds something with the same name."""
    if settings.name in PUBLISHED:
        return VDVAE.from_pretrained(published_file(settings.name, "model-ema", settings.weights.mirror))
    return VDVAE.from_pretrained(bundled_models()[settings.name])
