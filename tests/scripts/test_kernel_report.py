"""What the likelihood's kernel takes on a card, as docs/benchmarks/kernels.md has it: compiled, never run."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from vdvae_lr.cli.shared.config import settings_of_presets
from vdvae_lr.files.bundled import CHECKOUT_ROOT
from vdvae_lr.model.vdvae.vae import VAEConfig


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(CHECKOUT_ROOT / "scripts" / "benchmarks"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import kernel_report

    yield kernel_report
    for name in ("kernel_report", "traffic"):
        del sys.modules[name]


@pytest.fixture
def ffhq256() -> VAEConfig:
    return settings_of_presets("ffhq256").model


def test_bytes_of_a_pixel(report: ModuleType, ffhq256: VAEConfig) -> None:
    """100 numbers and 3 values are read, 100 derivatives and 1 log-probability written, of 4 bytes each."""
    kernel, plain, operations = report.bytes_of_a_pixel(*report.inputs(ffhq256, channels_last=True))
    assert kernel == 816
    assert (plain, operations) == (18_437, 84)


@pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="triton is not installed; the extra dev has it on Linux x86-64",
)
def test_the_kernel_compiles_and_spills_nothing(report: ModuleType, ffhq256: VAEConfig) -> None:
    """The interpreter does not see what the compiler refuses."""
    from vdvae_lr.model.mixture_kernel import arguments

    registers, spilled = report.compiled(arguments(*report.inputs(ffhq256, channels_last=True)), 90)
    assert 16 < registers <= 80
    assert spilled == 0
