"""Models with weights in and out in one line: `vdvae_lr.VDVAE`, and the base class for a model of your own.

model = vdvae_lr.VDVAE.from_pretrained("ffhq256")
model.save_pretrained("folder")
model.push_to_hub("somebody/lrvdvae-ffhq256")
"""

import time
from codecs import BOM_UTF8
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, cast

import torch
from huggingface_hub import ModelCard, ModelHubMixin

from vdvae_lr.errors import InputError
from vdvae_lr.files.digests import DIGESTS_NAME, write_digests
from vdvae_lr.files.hub_client import LIBRARY, HubAccess, hub_errors, upload_timeout
from vdvae_lr.files.paths import cannot_be_read, is_file, path_of
from vdvae_lr.files.run_folder import EMA_NAME
from vdvae_lr.files.whole_file import remove
from vdvae_lr.hub.model_card import CARD_NAME, FIGURES, PICTURE_NAME, Provenance, licensed, model_card
from vdvae_lr.hub.run_record import read_run_record
from vdvae_lr.hub.sources import WeightSettings, WeightSource, find_weights, read_state, settings_of
from vdvae_lr.hub.vdvae.published import PUBLISHED
from vdvae_lr.hub.weight_folder import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    make_known,
    stored_tensors,
    write_config,
    write_weights,
)
from vdvae_lr.model.latent_model import LatentModel
from vdvae_lr.model.shallow.vae import ShallowConfig, ShallowModel
from vdvae_lr.model.vdvae.vae import VAEConfig, VeryDeepVAE

_SAVING = ".saving-"
_LONGEST_SAVE_S = 86_400.0
_WEIGHTS_LAST = (DIGESTS_NAME, CONFIG_NAME, WEIGHTS_NAME)
"""The order in which saved files take their places, after all others."""
_CLASSES: dict[type, type["PretrainedModel"]] = {}
"""The model classes by the dataclass of their settings."""


def model_class(config: Any) -> type["PretrainedModel"]:
    """The class that is built from these settings."""
    return _CLASSES[type(config)]


def class_called(name: object) -> type["PretrainedModel"]:
    """The class with this name, of those that are defined.

    Raises:
        InputError: there is none.
    """
    kinds = {kind.__name__: kind for kind in _CLASSES.values()}
    if not isinstance(name, str) or name not in kinds:
        raise InputError(f"there is no class of models called {name!r:.100}; known are {', '.join(sorted(kinds))}.")
    return kinds[name]


def config_of(model: type["PretrainedModel"]) -> type:
    """The dataclass of a class's settings.

    Raises:
        InputError: the class names none.
    """
    config = next((config for config, kind in _CLASSES.items() if kind is model), None)
    if config is None:
        raise InputError(
            f"class {model.__name__} does not name its settings; write class {model.__name__}(PretrainedModel, "
            "config=…) with the dataclass of them."
        )
    return config


class PretrainedModel(LatentModel, ModelHubMixin, library_name=LIBRARY):
    """A `LatentModel` that knows where its weights came from.

    A model of your own derives from it and names the dataclass of its settings, `class MyVAE(PretrainedModel,
    config=MyConfig)`. From then on every command of this program understands its weights.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.provenance = Provenance()
        """What is known of the weights; `dataset` and the model card come from it."""

    def __init_subclass__(cls, config: type | None = None, **options: Any) -> None:
        """Make the class known if it names the dataclass of its settings."""
        super().__init_subclass__(**options)
        if config is not None:
            make_known(cls.__name__, config)
            _CLASSES[config] = cls

    @property
    def dataset(self) -> str:
        """The data that the model was trained on, by the name that `--dataset` takes; empty: unknown."""
        return self.provenance.dataset

    @classmethod
    def from_pretrained(  # type: ignore[override] # the mixin's would ask the Hub for every name
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        ema: bool = True,
        config: Any = None,
        sources: WeightSettings | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Self:
        """A model with its weights, in evaluation mode.

        Args:
            name_or_path: a bundled or published name, `lrvdvae-NAME`, a Hub repository, an https address, a file, a
                folder, or a run (`vdvae_lr.hub.sources` has the table).
            revision: branch, tag or commit of a Hub repository; None: the one in `sources`.
            ema: take the averaged weights, if there are also those before averaging (runs, published models).
            config: the model's settings, for weights that come without them and are none of the published models.
            sources: where names are looked up.
            token, cache_dir, force_download, local_files_only: how to reach the Hub; huggingface_hub explains them.

        Raises:
            InputError: no such weights, damaged ones, or settings neither given nor found.
        """
        sources = sources or WeightSettings()
        cache = path_of(cache_dir) if cache_dir is not None else None
        access = HubAccess(revision or sources.revision or None, token, cache, force_download, local_files_only)
        source = find_weights(str(name_or_path), sources, ema=ema, access=access)
        chosen = settings_of(source, config)
        kind = model_class(chosen)
        if not issubclass(cls, kind) and not issubclass(kind, cls):
            raise InputError(f"{source.path} holds weights of a {kind.__name__}; load them with {kind.__name__}.")
        made = cls if issubclass(cls, kind) else cast("type[Self]", kind)
        with torch.device("meta"):
            state = read_state(source, made(chosen))
        model = made(chosen)
        model.provenance = _provenance(source)
        model.load_state_dict(state, strict=False)  # `read_state` has checked the names; other buffers stay as made
        return model.eval()

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write model.safetensors, config.json, their digests and a model card.

        What the folder held stays until all files are whole. Then they take their places, first the digests. If the
        process is killed in between, loading refuses the folder and never takes it for either model.

        Args:
            save_directory: the folder; it is made if needed.
            options: options of huggingface_hub's `save_pretrained` (`push_to_hub`, `repo_id`, …).

        Raises:
            InputError: the disk or the Hub refused.
        """
        target = path_of(save_directory)
        try:
            target.mkdir(parents=True, exist_ok=True)
            _clear_leftovers(target)
            with TemporaryDirectory(dir=target, prefix=_SAVING) as name:
                answer = super().save_pretrained(name, **({"repo_id": target.name} | options))
                if self._picture() is None:
                    (target / FIGURES / PICTURE_NAME).unlink(missing_ok=True)  # it belongs to the earlier weights
                names = [path.relative_to(name).as_posix() for path in Path(name).rglob("*") if path.is_file()]
                for each in [*sorted(set(names) - set(_WEIGHTS_LAST)), *_WEIGHTS_LAST]:
                    final = target / each
                    final.parent.mkdir(exist_ok=True)
                    (Path(name) / each).replace(final)
        except OSError as error:
            raise InputError(
                f"{target} cannot be written ({error.strerror or error}); free space or choose another folder."
            ) from None
        return answer

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Save, and upload in one commit; returns the commit's address. The repository is made if needed.

        Args:
            repo_id: OWNER/NAME.
            options: options of huggingface_hub's `push_to_hub` (`private`, `branch`, `create_pr`, `token`, …).

        Raises:
            InputError: no login, no right to write there, or no connection.
        """
        card = {"repository": repo_id} | options.pop("model_card_kwargs", {})
        with hub_errors(repo_id, "the files", options.get("branch")), upload_timeout():
            address: str = super().push_to_hub(repo_id, model_card_kwargs=card, **options)
            return address

    def generate_model_card(self, *arguments: Any, **facts: Any) -> ModelCard:
        """A card of what is known of these weights. Weights that came with a card are saved with that card instead."""
        return model_card(self, self.provenance, **facts)

    def _save_pretrained(self, save_directory: Path) -> None:
        write_config(save_directory, self.config, self.dataset)
        write_weights(save_directory / WEIGHTS_NAME, stored_tensors(self))
        write_digests(save_directory, (CONFIG_NAME, WEIGHTS_NAME))  # without the card: people edit cards
        if (card := self._kept_card()) is not None:
            (save_directory / CARD_NAME).write_bytes(card)
        if (picture := self._picture()) is not None:
            (save_directory / FIGURES).mkdir()
            (save_directory / FIGURES / PICTURE_NAME).write_bytes(picture.read_bytes())

    def _kept_card(self) -> bytes | None:
        """The card that came with the weights, if no run is known: it then says more than a new one could."""
        record, path, licence = self.provenance.record, self.provenance.card, self.provenance.licence
        if record is not None or path is None or not path.is_file():
            return None
        content = path.read_bytes()
        return licensed(content, licence, path) if licence else content

    def _picture(self) -> Path | None:
        """The picture that the card shows, if there is one."""
        record, card = self.provenance.record, self.provenance.card
        beside = card.parent / FIGURES / PICTURE_NAME if card is not None else None
        picture = record.picture if record is not None else beside
        return picture if picture is not None and is_file(picture) else None


class VDVAE(VeryDeepVAE, PretrainedModel, config=VAEConfig):
    """A very deep VAE (Child 2020) with weights in and out."""


class ShallowVAE(ShallowModel, PretrainedModel, config=ShallowConfig):
    """A VAE of the paper's shallow study (docs/shallow_study.md) with weights in and out."""


def _clear_leftovers(folder: Path) -> None:
    """Remove what a killed process was saving. A folder younger than a day may belong to a process that still saves."""
    for path in folder.glob(f"{_SAVING}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _LONGEST_SAVE_S:
                remove(path)


def _provenance(source: WeightSource) -> Provenance:
    published = source.published
    dataset = source.dataset or (published.dataset if published is not None else "")
    name = next((name for name, model in PUBLISHED.items() if model is published), "")
    record = read_run_record(source.path.parent)
    if record is not None and source.path.name != EMA_NAME:  # scores and picture are of averaged weights
        record = replace(record, bound={}, picture=None)
    card = source.path.parent / CARD_NAME
    try:
        ours = is_file(card) and card.read_bytes()[:8].removeprefix(BOM_UTF8).startswith((b"---\n", b"---\r\n"))
    except OSError as error:
        raise cannot_be_read(card, error) from None
    kept = card if ours else None  # a card begins with its metadata; other READMEs do not
    return Provenance(dataset, record, averaged=source.averaged, published=name, card=kept)
