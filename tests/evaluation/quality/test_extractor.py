"""Where the Inception network's weights come from, and the sentences for files that are no such weights."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from loopback_client import client_at
from refusals import refused
from safetensors.torch import save_file
from torch import Tensor, nn

from vdvae_lr.evaluation.quality import extractor
from vdvae_lr.evaluation.quality.extractor import FILE, SHA256, load_extractor

NOWHERE = "http://127.0.0.1:1"


class Small(nn.Module):
    """Stands for the network, with the kinds of tensors that it has."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1, bias=False)
        self.bn = nn.BatchNorm2d(4)
        self.eval()

    def forward(self, pixels: Tensor) -> Tensor:
        return self.bn(self.conv(pixels.float())).mean((2, 3))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extractor, "Inception", Small)


def published(**changes: Tensor) -> dict[str, Tensor]:
    """A state with the last layer that the published file has."""
    torch.manual_seed(0)
    return Small().state_dict() | {"fc.weight": torch.zeros(2, 4), "fc.bias": torch.zeros(2)} | changes


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_weights_of_a_file_are_used(tmp_path: Path, name: str) -> None:
    path, state = tmp_path / name, published()
    if path.suffix == ".safetensors":
        save_file({key: tensor for key, tensor in state.items() if "num_batches" not in key}, path)
    else:
        torch.save(state, path)
    found = load_extractor(str(path))
    pixels = torch.arange(48, dtype=torch.uint8).reshape(1, 3, 4, 4)
    expected = state["conv.weight"].flatten(1) @ pixels.float().mean((2, 3))[0] / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(found(pixels)[0], expected)
    assert found.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert not found.is_published


def test_the_published_file_has_the_digest_of_its_name() -> None:
    assert len(SHA256) == 64 and f"-{SHA256[:8]}." in FILE


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"conv.weight": torch.zeros(4, 3, 3, 3)}, "'conv.weight' is missing or has another shape"),
        ({"other.weight": torch.zeros(1)}, "'other.weight' is not part of it"),
    ],
)
def test_other_weights_are_refused(tmp_path: Path, changes: dict[str, Tensor], cause: str) -> None:
    torch.save(published(**changes), tmp_path / "w.pth")
    with refused("w.pth", cause, f"give {FILE}"):
        load_extractor(str(tmp_path / "w.pth"))


def test_a_weight_without_a_value_is_refused(tmp_path: Path) -> None:
    torch.save(published(**{"conv.weight": torch.full((4, 3, 1, 1), torch.nan)}), tmp_path / "w.pth")
    with refused("w.pth", "conv.weight", ""):
        load_extractor(str(tmp_path / "w.pth"))


def test_a_damaged_file_and_a_file_with_code_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save(published(), path)
    path.write_bytes(path.read_bytes()[:-100])
    with refused("w.pth", "cannot be read", "fetch it again"):
        load_extractor(str(path))
    torch.save(Small(), path)  # a pickle that asks for a class
    with refused("w.pth", "asks to run code", "fetch it again"):
        load_extractor(str(path))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with refused("w.pth", "is no file", "leave --extractor out"):
        load_extractor(str(tmp_path / "w.pth"))


@pytest.fixture(params=["offline", "no network"])
def cause(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(extractor, "ADDRESS", f"{NOWHERE}/{FILE}")
    with client_at(NOWHERE, tmp_path / "home"), monkeypatch.context() as patch:
        if request.param == "offline":
            patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        yield "HF_HUB_OFFLINE" if request.param == "offline" else "cannot be reached"


def test_without_network_the_remedy_is_named(cause: str) -> None:
    with refused("Inception network cannot be downloaded", cause, "name it with --extractor"):
        load_extractor("")
