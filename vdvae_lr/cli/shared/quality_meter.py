"""What `quality` and `compare` share: pictures of several models against the features of the same images."""

from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

from rich.console import Console
from torch import Tensor

from vdvae_lr.errors import InputError
from vdvae_lr.evaluation.measuring import Measuring
from vdvae_lr.evaluation.quality.extractor import Extractor, load_extractor
from vdvae_lr.evaluation.quality.features import cache_path, image_features
from vdvae_lr.evaluation.quality.scores import count_warnings
from vdvae_lr.evaluation.quantities import Findings
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.pictures.picture_quality import WantedSets, measure_picture_quality
from vdvae_lr.processes.world import World


@dataclass(frozen=True)
class QualityMeter:
    """The extractor, and the images that models' pictures are compared with."""

    wanted: WantedSets
    extractor: Extractor
    images: Tensor | None
    """Features of the images, on the main process."""
    notes: tuple[str, ...]
    """What a reader must know to read the numbers right, each once."""

    def measure(self, model: LatentModel, measuring: Measuring) -> Findings:
        """FID, KID, precision and recall of a model's pictures, on the main process. Every process must call this.

        Raises:
            InputError: as `measure_picture_quality`.
        """
        extractor = self.extractor
        compared = {name: images for name, (_, images) in self.wanted.counts(measuring.count()).items()}
        details = {
            "extractor": {"name": extractor.name, "sha256": extractor.digest, "features": extractor.features},
            "torchmetrics": version("torchmetrics"),
            "compared_with": compared,
        }
        found = measure_picture_quality(model, measuring, extractor, self.images, self.wanted)
        return found.and_also(Findings(details=details, notes=list(self.notes)))


def quality_meter(weights: str, wanted: WantedSets, measuring: Measuring, console: Console) -> QualityMeter:
    """Load the extractor from the file `weights` (empty: the published one), and take the images' features.

    Every process must call this. Prints what a reader must know, and where the features are kept.

    Raises:
        InputError: the extractor or an image cannot be read.
    """
    extractor = _extractor(weights, measuring.world)
    notes = []
    for pictures, compared in wanted.counts(measuring.count()).values():
        notes += count_warnings(pictures, compared, extractor.features)
    if not extractor.is_published:
        notes.append("The extractor is not the published one, so these numbers compare only with each other.")
    notes = list(dict.fromkeys(notes))
    for note in notes:
        console.print(note, soft_wrap=True)
    images, sentence = image_features(measuring, extractor, cache_path(measuring, extractor))
    console.print(sentence, soft_wrap=True)
    return QualityMeter(wanted, extractor, images, tuple(notes))


def _extractor(weights: str, world: World) -> Extractor:
    """The extractor on the world's device, the same on every process (raises InputError if it is not)."""
    extractor = world.patiently(partial(load_extractor, weights), "loading the extractor")
    if not world.agree(int(extractor.digest[:15], 16)):
        raise InputError("the processes found different weights of the extractor; let all read the same file.")
    extractor.network.to(world.device)
    return extractor
