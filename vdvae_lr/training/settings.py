"""What one run is: where it starts, how long it is, how it is computed, what it leaves; and all settings together."""

import dataclasses
import os
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from tyro.conf import OmitArgPrefixes, arg

from vdvae_lr.datasets.catalogue import DataSettings
from vdvae_lr.datasets.sampler import micro_batch_count
from vdvae_lr.errors import InputError
from vdvae_lr.files.paths import LONGEST_NAME
from vdvae_lr.files.presets import preset_words
from vdvae_lr.hub.pretrained import model_class
from vdvae_lr.hub.run_record import Start, start_of_run
from vdvae_lr.hub.sources import WeightSettings
from vdvae_lr.hub.weight_folder import running_statistics
from vdvae_lr.losses.objective import ObjectiveSettings
from vdvae_lr.losses.reading import check_cutoff, check_group_reading
from vdvae_lr.model.vdvae.vae import VAEConfig
from vdvae_lr.setting_checks import AtOnce, Between, Count, CountOrNone, PathText, TrainingSeed, check_settings
from vdvae_lr.training.optim import OptimisationSettings
from vdvae_lr.training.trackers import chosen_trackers

_SHARE_OF_A_PROCESS = 16  # images of a step, if neither n_batch nor global_batch is given
_LONGEST_RUN_NAME = LONGEST_NAME - 5  # a run that is moved aside gets a number behind its name


@dataclass(frozen=True)
class RunSettings:
    """Start, length, precision and output of a run."""

    hps: Annotated[str, arg(aliases=["--hparam_sets"])] = "fashion"
    """Presets from hps/, comma-separated, applied left to right (ffhq256 or ffhq256,paper)."""
    desc: str = ""
    """Name of the run's folder in save_dir; a/b is a folder in a folder. Empty: the names of the presets."""
    save_dir: PathText = "runs"
    """Folder for runs. The same command again goes on where the run stopped."""
    fresh: bool = False
    """Start a new run. An existing run of this name is moved aside; it is never overwritten."""
    accept_changed_images: bool = False
    """Go on although images were added, removed or renamed since the last checkpoint. From there on the run differs
    from an unbroken one."""
    dry_run: bool = False
    """Print the resolved settings, the parameter count and the schedule, then stop; needs no data and no weights."""
    pretrained: PathText = "none"
    """Weights to start from: a bundled or published name, a Hub repository, an address, a file, a folder or a run.
    none: random weights. The averaged weights serve for both the weights and their average. Without --hps the weights
    bring their settings along."""
    restore_path: PathText = ""
    """In place of `pretrained`, as in the published code: the weights before averaging, by file or name. They also
    serve as the average if restore_ema_path is empty."""
    restore_ema_path: PathText = ""
    """In place of `pretrained`, as in the published code: the averaged weights. They also serve as the weights if
    restore_path is empty."""
    restore_optimizer_path: PathText = ""
    """As in the published code: the optimiser's state (apex FusedAdam), by file or name. AdamW takes it over."""
    open_at_start: Annotated[float, Between(0)] = 0.0
    """Open closed latents a little in a run that starts from weights: Gaussian noise of this size, relative to the
    weights' own, is added to the weights through which a latent shows and is read (not to their average); 0: none."""
    seed: TrainingSeed = 0
    """Seed of the initial weights, the data order and the noise."""
    iters: Count = 1000
    """Number of iterations."""
    n_batch: Annotated[int | Literal["auto"], Between(1, 65_536)] = "auto"
    """Images in one micro-batch on one process. auto: on CUDA the largest number that divides the process's share of
    global_batch and fits the card, found by trial once; on a CPU the largest with at most 49,152 pixel values, such as
    16 colour images of 32x32. It changes rounding only, except with free bits or batch normalisation; there auto is the
    same on every device."""
    global_batch: Annotated[int, Between(0, 2**24)] = 0
    """Images in one iteration over all processes. Gradients are accumulated over micro-batches until it is reached. 0:
    n_batch (16 if that is auto) times the number of processes."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the convolutions; KL, likelihood and sums are always float32. auto: bf16 on CUDA, fp32 on a CPU.
    On CUDA, fp32 multiplies in TF32, torch's default for convolutions."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute. auto: on CUDA if there is a card."""
    checkpoint_activations: bool = False
    """Recompute activations in the backward pass. It takes about a third more time and a fraction of the memory."""
    checkpoint_resolution: Annotated[int, Between(1, 65_536)] = 1
    """Lowest resolution at which --checkpoint_activations recomputes; the default is everywhere. Most memory is at the
    highest resolutions."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the blocks with torch.compile. It takes minutes at the start and gives fewer kernels. auto: on CUDA, if
    20 minutes of steps or more are ahead; a run then tries it, keeps it if it is faster and the gradient the same, and
    says so. It changes rounding only."""
    cuda_graph: bool = True
    """On CUDA, capture the work of a micro-batch once as a graph, and replay it."""
    kernels: Literal["auto", "plain"] = "auto"
    """On CUDA, what computes the likelihood and its gradient. auto: a Triton kernel, if it agrees with the plain
    formula and is faster; a run tries both at its start and says what it takes. plain: the plain formula. They differ
    by rounding only."""
    stuck_after_s: Annotated[float, Between(0, above=True, infinite=True)] = 1800.0
    """With several processes: if one of them makes no progress for this many seconds, the run says where each process
    was, and ends."""
    test_eval: bool = False
    """Do not train. Evaluate the run's averaged weights, or those that it would start from, on the test split."""
    eval_examples: CountOrNone = 0
    """Evaluate on this many of the first examples only; 0: on all."""
    watch_examples: CountOrNone = 200
    """At each evaluation, also measure active units and recovered information on this many of its first examples; 0:
    measure the bound only."""
    iters_per_print: Count = 100
    """Iterations between log lines."""
    iters_per_eval: Count = 10000
    """Iterations between evaluations. The end of the run has one, too."""
    iters_per_images: Count = 10000
    """Iterations between pictures of reconstructions and samples. The end of the run has one, too, and so has the start
    of a run that starts from weights."""
    iters_per_save: Count = 1000
    """Iterations between checkpoints. The end of the run has one, too."""
    iters_per_ckpt: CountOrNone = 25000
    """Also save a checkpoint at every multiple of this, and never remove it; 0: none."""
    keep_checkpoints: Count = 2
    """How many of the newest checkpoints to keep."""
    num_images_visualize: AtOnce = 8
    """Images in each row of a picture."""
    track: str = "tensorboard"
    """Where the run also shows its numbers and pictures, with commas: tensorboard, wandb, trackio; empty or none: in
    log.jsonl and images/ alone, which it always writes."""
    track_project: str = "vdvae_lr"
    """Project of the run in wandb and trackio. Its name there is that of its folder."""

    def __post_init__(self) -> None:
        """Refuse settings that no run can have; raises InputError."""
        check_settings(self)
        object.__setattr__(self, "hps", ",".join(preset_words(self.hps)))
        if not self.save_dir:
            raise InputError("save_dir is empty; name a folder for runs, such as runs.")
        _check_run_name(self.name)
        chosen_trackers(self.track)
        if not self.track_project.strip():
            raise InputError("track_project is empty; name a project, such as vdvae_lr.")
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
        return micro_batch_count(self.images_of_a_step(processes), self.images_at_once, processes)

    @property
    def images_at_once(self) -> int:
        """`n_batch`; 1 as long as it is auto (`training/micro_batch.py` settles it when a run begins)."""
        return 1 if self.n_batch == "auto" else self.n_batch

    def images_of_a_step(self, processes: int) -> int:
        """`global_batch`, or what 0 stands for."""
        return self.global_batch or processes * (_SHARE_OF_A_PROCESS if self.n_batch == "auto" else self.n_batch)

    @property
    def name(self) -> str:
        """The run's folder name; a preset of your own gives its file's name without the path."""
        names = (Path(preset.strip()).name.removesuffix(".toml") for preset in self.hps.split(","))
        return self.desc or "-".join(names)


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

    def __post_init__(self) -> None:
        """Refuse an LR term that the model cannot have; raises InputError."""
        check_cutoff(self.objective.lr_reading, self.model.image_size)
        if self.objective.lr_reading == "group":
            with torch.device("meta"):
                check_group_reading(model_class(self.model)(self.model))

    @property
    def looks_at_micro_batches(self) -> bool:
        """Whether `n_batch` changes the loss: free bits and batch normalisation average over a micro-batch."""
        with torch.device("meta"):
            return bool(self.objective.free_nats or running_statistics(model_class(self.model)(self.model)))

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
    | {"iters_per_ckpt", "keep_checkpoints", "num_images_visualize", "stuck_after_s"}
    | {"checkpoint_activations", "checkpoint_resolution", "compile", "kernels"}
    | {"watch_examples", "accept_changed_images", "bad_images", "hub_revision", "track", "track_project"}
)
"""Settings that may differ when a run goes on: none of them changes what was computed until then.

`bad_images` changes nothing before the first unreadable image, and there a run with `stop` ends. `data_root` and
`hub_revision` only say where the images are: whether they are the same is checked. So may `n_batch`, unless the loss
looks at micro-batches.
"""
