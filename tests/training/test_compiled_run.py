"""A run with --compile compiles its steps, and nothing else."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn
from training_runs import ALONE, tiny_settings, write_images

from vdvae_lr.training.loop import train


@pytest.fixture
def made_with_gradients(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Of every compiled graph, whether gradients were on. The compiler's place is taken by one that counts."""
    found: list[bool] = []
    compile_module = nn.Module.compile

    def counted(graph: fx.GraphModule, examples: Sequence[Tensor]) -> Callable[..., object]:
        found.append(torch.is_grad_enabled())
        return graph.forward

    monkeypatch.setattr(
        nn.Module, "compile", lambda self, **settings: compile_module(self, **settings, backend=counted)
    )
    torch._dynamo.reset()
    return found


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's compiler looks at its own inputs
def test_evaluation_and_pictures_do_not_wait_for_the_compiler(tmp_path: Path, made_with_gradients: list[bool]) -> None:
    images = write_images(tmp_path / "images")
    places = {"data_root": str(images), "save_dir": str(tmp_path), "desc": "run"}
    assert train(tiny_settings(compile="on", iters=2, iters_per_eval=1, **places), ALONE) == 0
    assert made_with_gradients and all(made_with_gradients)
    seen: list[fx.GraphModule] = []
    torch.compile(lambda x: x + 1, backend=lambda graph, _: seen.append(graph) or graph.forward)(torch.ones(1))
    assert len(seen) == 1  # the run is over, and the compiler is on again
