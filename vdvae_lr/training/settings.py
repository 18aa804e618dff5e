"""What one run is: where it starts, how long it is, how it is computed, what it leaves; and all settings together."""

import dataclasses
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import OmitArgPrefixes, arg

from vdvae_lr.datasets.catalogue import DataSettings
from vdvae_lr.datasets.sampler import micro_batch_count
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import LONGEST_NAME
from vdvae_lr.files.presets import preset_words
from vdvae_lr.hub.run_record import Start, start_of_run
from vdvae_lr.hub.sources import WeightSettings
from vdvae_lr.losses.objective import ObjectiveSettings
from vdvae_lr.model.vdvae.vae import VAEConfig
from vdvae_lr.setting_checks import AtOnce, Between, Count, CountOrNone, PathText, TrainingSeed, check_settings
from vdvae_lr.training.optim import OptimisationSettings

_LONGEST_RUN_NAME = LONGEST_NAME - 5  # a run that is moved aside gets a number behind its name


@dataclass(frozen=True)
class RunSettings:
    """Start, length, precision and output of a run."""

    hps: Annotated[str, arg(aliases=["--hparam_sets"])] = "fashion"
    """Presets from hps/, comma-separated, applied left to right (ffhq256 or ffhq256,paper)."""
    desc: str = ""
    """Name of the run's folder inside save_dir (a/b is a folder in a folder); empty: the presets' names."""
    save_dir: PathText = "runs"
    """Folder for runs. Running the same command again goes on where it stopped."""
    fresh: bool = False
    """Start anew: an existing run of this name is moved aside, never overwritten."""
    accept_changed_images: bool = False
    """Go on although images were added, removed or renamed since the last checkpoint: from there the run differs from
    an unbroken one."""
    dry_run: bool = False
    """Print the resolved settings, the parameter count and the schedule, then stop; needs no data and no weights."""
    pretrained: PathText = "none"
    """Weights to start from: a bundled or published name, a Hub repository, an address, a file, a folder, a run; none:
    from scratch. Averaged weights are taken, for the weights and for their average. Without --hps they bring their
    settings along."""
    restore_path: PathText = ""
    """Published style, in place of `pretrained`: the weights before averaging, by file or name; averages too without
    restore_ema_path.
    """
    restore_ema_path: PathText = ""
    """Published style, in place of `pretrained`: averaged weights; weights too without restore_path."""
    restore_optimizer_path: PathText = ""
    """Published style: the optimiser's state (apex FusedAdam), by file or published name, taken over into AdamW."""
    seed: TrainingSeed = 0
    """Of initial weights, data order and noise."""
    iters: Count = 1000
    """Iterations of the run."""
    n_batch: AtOnce = 16
    """Images of one micro-batch on one process."""
    global_batch: Annotated[int, Between(0, 2**24)] = 0
    """Images of one iteration over all processes, reached by accumulating micro-batches; 0: n_batch times the number of
    processes."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of the convolutions; KL, likelihood and sums are always float32. auto: bf16 on CUDA, fp32 on a CPU. On CUDA, fp32
    multiplies in TF32, torch's default for convolutions."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass: about a third more time for a fraction of the memory."""
    compile: bool = False
    """Compile the blocks with torch.compile (some minutes at the start, fewer and faster kernels after)."""
    cuda_graph: bool = True
    """On CUDA, capture a micro-batch once and replay it."""
    stuck_after_s: Annotated[float, Between(0, above=True, infinite=True)] = 1800.0
    """With several processes: end the run, and say where each one was, when one of them makes no progress for so many
    seconds."""
    test_eval: bool = False
    """Only evaluate the averaged weights on the test split, where the run stands or on what it would start from."""
    eval_examples: CountOrNone = 0
    """Evaluate on the first so many examples only; 0: all of them."""
    watch_examples: CountOrNone = 200
    """At each evaluation, also measure active units and recovered information on the first so many of its examples; 0:
    only the bound."""
    iters_per_print: Count = 100
    """Iterations between log lines."""
    iters_per_eval: Count = 10000
    """Iterations between evaluations; one more at the end."""
    iters_per_images: Count = 10000
    """Iterations between pictures of reconstructions and samples; one more at the end, and one before the first
    iteration of a run that starts from weights."""
    iters_per_save: Count = 1000
    """Iterations between checkpoints; one more at the end."""
    iters_per_ckpt: CountOrNone = 25000
    """A checkpoint at every multiple of this as well, which stays for good; 0: none."""
    keep_checkpoints: Count = 2
    """How many of the newest checkpoints to keep."""
    num_images_visualize: AtOnce = 8
    """Images in a picture's row."""

    def __post_init__(self) -> None:
        """Refuse what no run can be; raises InputError."""
        check_settings(self)
        object.__setattr__(self, "hps", ",".join(preset_words(self.hps)))
        if not self.save_dir:
            raise InputError("save_dir is empty; name a folder for runs, such as runs.")
        _check_run_name(self.name)
        self.micro_batches(processes=1)  # raises InputError if n_batch does not divide global_batch

    @property
    def starts(self) -> tuple[Start, Start]:
        """What the run's weights start from, and what their average starts from."""
        return start_of_run(vars(self))

    def micro_batches(self, processes: int) -> int:
        """Micro-batches of one iteration over all processes.

        Raises:
            InputError: `global_batch` is no multiple of what the processes take at once.
        """
        return micro_batch_count(self.global_batch or self.n_batch * processes, self.n_batch, processes)

    @property
    def name(self) -> str:
        """The run's folder name; a preset of your own gives its file's name without the path."""
        return self.desc or "-".join(Path(preset.strip()).stem for preset in self.hps.split(","))


def _check_run_name(name: str) -> None:
    """Refuse a name that leads out of save_dir, or that no folder can have; raises InputError."""
    shown = f"'{name}'" if name.isprintable() else ascii(name)
    if name.startswith(("/", "~")) or {".", ".."} & set(name.split("/")) or not name.strip("/"):
        raise InputError(
            f"the run's name is {shown}, which is no folder inside save_dir; give a plain name with --desc, and the "
            "place with --save_dir."
        )
    if any(unicodedata.category(letter) == "Cc" for letter in name):
        raise InputError(
            f"the run's name {shown} has a line break or another control character; choose another --desc."
        )
    longest = max(name.split("/"), key=lambda part: len(os.fsencode(part)))
    size = len(os.fsencode(longest))
    if size > _LONGEST_RUN_NAME:
        raise InputError(
            f"the run's name '{longest[:20]}…' has {size} bytes, but a run's folder may have at most "
            f"{_LONGEST_RUN_NAME}; choose a shorter --desc."
        )


@dataclass(frozen=True)
class Settings:
    """Fine-tune (or train) a hierarchical VAE with Latent Reconstruction.

    Settings come from the presets that --hps names, then from the command line. Running the same command again goes on
    where it stopped. Under mpiexec, torchrun or srun the same command uses every process.
    """

    run: OmitArgPrefixes[RunSettings] = dataclasses.field(default_factory=RunSettings)
    objective: OmitArgPrefixes[ObjectiveSettings] = dataclasses.field(default_factory=ObjectiveSettings)
    data: OmitArgPrefixes[DataSettings] = dataclasses.field(default_factory=DataSettings)
    optimisation: OmitArgPrefixes[OptimisationSettings] = dataclasses.field(default_factory=OptimisationSettings)
    weights: OmitArgPrefixes[WeightSettings] = dataclasses.field(default_factory=WeightSettings)
    model: OmitArgPrefixes[VAEConfig] = dataclasses.field(default_factory=VAEConfig)

    def flat(self) -> dict[str, Any]:
        """Every setting by its name on the command line."""
        return {name: value for group in dataclasses.asdict(self).values() for name, value in group.items()}


def settings_for(config: type) -> type[Settings]:
    """`Settings` of a run whose model is built from the dataclass `config`.

    Raises:
        InputError: a setting of the model has the name of another setting.
    """
    if config is VAEConfig:
        return Settings
    others = Settings().flat().keys() - {field.name for field in dataclasses.fields(VAEConfig)}
    taken = next((field.name for field in dataclasses.fields(config) if field.name in others), None)
    if taken is not None:
        raise InputError(f"{config.__name__} has a setting '{taken}', which a run has already; give it another name.")
    model = ("model", OmitArgPrefixes[config], dataclasses.field(default_factory=config))  # type: ignore[misc, valid-type]
    kind = dataclasses.make_dataclass("Settings", [model], bases=(Settings,), frozen=True)
    kind.__doc__ = Settings.__doc__
    return kind


NEUTRAL = frozenset(
    {"fresh", "dry_run", "save_dir", "desc", "data_root", "weights_mirror", "lr_repository", "device", "num_workers"}
    | {"test_eval", "eval_examples", "iters_per_print", "iters_per_eval", "iters_per_images", "iters_per_save"}
    | {"iters_per_ckpt", "keep_checkpoints", "num_images_visualize", "stuck_after_s", "checkpoint_activations"}
    | {"watch_examples", "accept_changed_images", "bad_images"}
)
"""Settings that may differ when a run goes on: none of them changes what was computed until then.

`bad_images` changes nothing before the first unreadable image, and there a run with `stop` ends.
"""
