"""The count of a step's operations: what it counts, and that steps do not take more of them unnoticed."""

import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch

from vdvae_lr.errors import EXIT_INPUT_ERROR
from vdvae_lr.files.bundled import CHECKOUT_ROOT

MOST = {  # kernels of a step of ffhq256, forward and backward, and their GB: docs/benchmarks/step.md
    ("ELBO + LR", "float32"): (7_854, 104.9),
    ("ELBO + LR", "bf16"): (8_140, 57.3),
}


@pytest.fixture
def traffic(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(CHECKOUT_ROOT / "scripts" / "benchmarks"))
    import traffic

    yield traffic
    del sys.modules["traffic"]


@pytest.mark.parametrize(("objective", "precision"), list(MOST))
def test_a_step_takes_no_more_operations_than_it_did(traffic: ModuleType, objective: str, precision: str) -> None:
    """A change that lowers a number lowers it here too. Versions of torch differ by a few operations."""
    step = traffic.step_traffic("ffhq256", objective, precision)
    kernels, gigabytes = MOST[objective, precision]
    assert 0.97 * kernels <= len(step.both) <= 1.01 * kernels
    assert 0.97 * gigabytes <= traffic.gigabytes(step.both) <= 1.01 * gigabytes


def test_bytes_are_those_of_inputs_and_outputs(traffic: ModuleType) -> None:
    with traffic.Recording() as recording:
        one = torch.zeros(4, 8, device="meta")
        (one.view(32).exp() + torch.zeros(1, device="meta").expand(32)).sum()
    made = {operation.kind: operation.bytes for operation in recording.operations}
    assert made == {"zeros": 4, "exp": 256, "add": 128 + 4 + 128, "sum": 128 + 4}  # zeros: the last of both


def test_element_wise_operations_between_products_fuse(traffic: ModuleType) -> None:
    """gelu and add are one kernel; so are the operations after the product, of which one reads from before it."""
    with traffic.Recording() as recording:
        one = torch.empty(8, 8, device="meta")
        early = torch.nn.functional.gelu(one) + 1
        late = (early @ one).exp() * early
        late.sum()
    kernels, size = traffic.fused(recording.operations)
    assert [operation.kind for operation in recording.operations] == ["gelu", "add", "mm", "exp", "mul", "sum"]
    assert kernels == 3
    assert size == 4 * ((64 + 64) + (64 + 64 + 64) + (64 + 64 + 1))


def test_the_table_names_each_step(traffic: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["traffic.py", "--preset", "fashion", "--images", "2", "--kinds", "3", "--memory"])
    assert traffic.main() == 0
    printed = capsys.readouterr().out
    assert printed.startswith("fashion, 2 image(s), torch ")
    for step in ("ELBO, float32", "ELBO + LR, bf16"):
        assert f"| {step} |" in printed
        assert f"\n{step}\n" in printed
        assert f"{step}: stored" in printed
    assert "| 32 | " in printed


def test_an_unknown_preset_is_one_sentence(traffic: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["traffic.py", "--preset", "nothing"])
    assert traffic.main() == EXIT_INPUT_ERROR
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert "nothing" in captured.err
