"""`vdvae-lr app`: a page in the browser to try one or two models with sliders.

vdvae-lr app                                              the two bundled models on bundled images
vdvae-lr app before=ffhq256 LR=runs/ffhq256 --data_root data/ffhq256
"""

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Literal

import numpy as np
import tyro

from vdvae_lr.cli.shared.loaded_models import LoadingSettings, load_model
from vdvae_lr.cli.shared.measured_models import HeldOutImages, check_comparable, model_sources
from vdvae_lr.cli.shared.progress import plain_console
from vdvae_lr.datasets.hub_listing import HubSettings
from vdvae_lr.errors import InputError
from vdvae_lr.hub.pretrained import PretrainedModel
from vdvae_lr.pictures.evaluation_pictures import first_pixels
from vdvae_lr.pictures.images import Pictures, as_pictures
from vdvae_lr.processes.world import World, joined_world
from vdvae_lr.setting_checks import Between, PathText

_BUNDLED = ("before=fashion", "LRVDVAE=lrvdvae-fashion")
_BUNDLED_IMAGES = "fashion_small"
_LEAST_GRADIO = 6


@dataclass(frozen=True, kw_only=True)
class AppSettings(LoadingSettings, HubSettings):
    """Try models in the browser: noise by latent group, first groups, samples, two images mixed."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME=]RUN_OR_WEIGHTS")] = ()
    """One model, or several of one architecture to see side by side; none: the two bundled ones."""
    dataset: str = ""
    """Data set of the images to begin with; empty: the one that the first model was trained on."""
    data_root: PathText = ""
    """Folder that holds the data set's files; empty: as for `vdvae-lr noise`."""
    images: Annotated[int, Between(0, 64)] = 6
    """Number of held-out images to begin with; 0: none, so that no data set is needed."""
    host: str = "127.0.0.1"
    """Address to answer at. The default is this machine alone; 0.0.0.0: everybody who reaches it."""
    port: Annotated[int, Between(0, 65_535)] = 0
    """Port to answer at; 0: the first free one from 7860 on."""
    open: bool = False
    """Also open the page in this machine's browser."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""

    @property
    def sources(self) -> dict[str, str]:
        """What each model is loaded from, by its name on the page (raises InputError if two have one name)."""
        return model_sources(self.models or _BUNDLED)


def run(settings: AppSettings) -> None:
    """Load the models and serve the page until Ctrl-C.

    Raises:
        InputError: Gradio is missing, a model cannot be used, models differ in architecture, or the port is taken.
    """
    _check_gradio()
    _check_port(settings)
    with joined_world(settings.device) as world:
        if world.size > 1:
            raise InputError(f"app is for one process, and {world.size} were started; start it without a launcher.")
        models = {
            name: load_model(partial(settings.load, source), name, world) for name, source in settings.sources.items()
        }
        check_comparable(models)
        _serve(settings, models, _first_images(settings, models, world))


def _check_gradio() -> None:
    try:
        installed = version("gradio")
    except PackageNotFoundError:
        installed = ""
    if not installed or int(installed.partition(".")[0]) < _LEAST_GRADIO:
        has = f"Gradio {installed} is" if installed else "no Gradio is"
        raise InputError(
            f"app needs Gradio {_LEAST_GRADIO} or newer, and {has} installed: pip install 'vdvae_lr[app]'."
        )


def _first_images(settings: AppSettings, models: Mapping[str, PretrainedModel], world: World) -> Pictures:
    """Held-out images (B, H, W, C). Where they cannot be had, says so, and B is 0: a visitor can add one."""
    channels, *size = next(iter(models.values())).image_shape
    dataset = settings.dataset or ("" if settings.models else _BUNDLED_IMAGES)
    if settings.images:
        on_hub = {field.name: getattr(settings, field.name) for field in fields(HubSettings)}
        held_out = HeldOutImages(dataset=dataset, data_root=settings.data_root, **on_hub)
        try:
            return as_pictures(first_pixels(held_out.find(models, plain_console(), world).images, settings.images))
        except InputError as error:
            if settings.dataset or settings.data_root:
                raise
            plain_console().print(f"There are no images to begin with, but one can be added on the page: {error}")
    return np.empty((0, *size, channels), np.uint8)


def _serve(settings: AppSettings, models: Mapping[str, PretrainedModel], images: Pictures) -> None:
    from vdvae_lr.app.page import open_page  # Gradio is optional, and slow to import
    from vdvae_lr.app.workbench import Workbench

    bench = Workbench(models, images)
    try:
        address = open_page(bench, settings.host, settings.port, settings.open)
    except OSError as error:
        if error.errno is not None:
            raise
        raise _cannot_answer(settings, "no port is free") from None  # Gradio's own error has no number
    plain_console().print(f"Open {address} in a browser. Ctrl-C ends the program.")
    with suppress(KeyboardInterrupt):
        threading.Event().wait()


def _check_port(settings: AppSettings) -> None:
    """Refuse a port that is taken, before models are loaded, and an address that is not this machine's (InputError)."""
    with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port of a program that has just ended
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise _cannot_answer(settings, error.strerror or str(error)) from None


def _cannot_answer(settings: AppSettings, reason: str) -> InputError:
    where = f"{settings.host}, port {settings.port}" if settings.port else settings.host
    return InputError(f"app cannot answer at {where} ({reason}); choose another --port, or --host.")
