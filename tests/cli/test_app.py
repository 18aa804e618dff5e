"""`vdvae-lr app` refuses what it cannot serve before it loads a model."""

import importlib.metadata
import socket
from pathlib import Path

import numpy as np
import pytest
from refusals import refused
from saved_models import save_tiny

from vdvae_lr.cli import app
from vdvae_lr.cli.app import AppSettings, run
from vdvae_lr.pictures.images import Pictures

served: list[Pictures] = []


@pytest.fixture(autouse=True)
def _not_served(monkeypatch: pytest.MonkeyPatch) -> None:
    served.clear()
    monkeypatch.setattr(app, "_serve", lambda settings, models, images: served.append(images))


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with refused(f"port {port}", "Address already in use", "choose another --port"):
            run(AppSettings(port=port))


def test_an_address_of_another_machine_is_refused() -> None:
    with refused("192.0.2.1", "Cannot assign requested address", "--host"):
        run(AppSettings(host="192.0.2.1"))


@pytest.mark.parametrize("found", ["", "4.44.1"])
def test_gradio_must_be_there_and_new_enough(monkeypatch: pytest.MonkeyPatch, found: str) -> None:
    def version(name: str) -> str:
        if not found:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(app, "version", version)
    with refused("Gradio", f"{found or 'no Gradio'} is installed", "pip install 'vdvae_lr[app]'"):
        run(AppSettings())


def test_models_without_names_are_called_as_their_folders(tmp_path: Path) -> None:
    assert AppSettings(models=("runs/one", "two=runs/2")).sources == {"one": "runs/one", "two": "runs/2"}
    with refused("two models are called 'one'", "'one'", "own name"):
        assert AppSettings(models=("runs/one", "old/one")).sources


def test_models_of_two_architectures_are_refused(tmp_path: Path) -> None:
    models = (save_tiny(tmp_path / "one"), save_tiny(tmp_path / "two", zdim=3))
    with refused("'one' and 'two'", "differ in zdim", "one architecture"):
        run(AppSettings(models=models))


def test_images_to_begin_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those that were asked for must be there; others may be missing, and the page still opens."""
    model = save_tiny(tmp_path / "one")
    run(AppSettings(models=(model,), images=3))
    run(AppSettings(models=(model,), images=0))
    run(AppSettings(models=(model,), dataset="fashion_small"))
    assert [images.shape for images in served] == [(3, 32, 32, 1), (0, 32, 32, 1), (6, 32, 32, 1)]
    assert np.ptp(served[0]) > 0
    with refused("fashion", "does not exist", "--data_root"):
        run(AppSettings(models=(model,), dataset="fashion", data_root=str(tmp_path)))
    config = tmp_path / "one" / "config.json"
    config.write_text(config.read_text().replace("fashion_small", ""))
    run(AppSettings(models=(model,)))
    assert len(served[-1]) == 0 and "one can be added on the page" in capsys.readouterr().out
