"""Compiled blocks: one graph serves all blocks of a shape, and computes what the block computes."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from small_config import SMALL
from torch import Tensor, fx

from vdvae_lr.losses.objective import ObjectiveSettings
from vdvae_lr.model.noise import PassNoise
from vdvae_lr.model.vdvae.vae import VeryDeepVAE
from vdvae_lr.training.step import batch_terms

BLOCKS = {"enc_blocks": "8x2,8d2,4x2,4d4,1x2", "dec_blocks": "1x2,4m1,4x2,8m4,8x2"}
TWICE = {"enc_blocks": "8x5,8d2,4x5,4d4,1x4", "dec_blocks": "1x4,4m1,4x5,8m4,8x5"}
WITHOUT_LR = ObjectiveSettings(alpha_T=0.0)


def total(model: VeryDeepVAE, objective: ObjectiveSettings) -> Tensor:
    """The objective of two images, whose gradient is taken."""
    generator = torch.Generator().manual_seed(1)
    noise = PassNoise(model, 2, torch.device("cpu"), image=objective.uses_lr and objective.lr_image == "sample")
    noise.draw(2)
    levels = torch.randint(0, 256, (2, *model.image_shape), generator=generator).float()
    value = batch_terms(model, objective, levels, noise, 0.5).total
    value.backward()
    return value.detach()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's compiler looks at its own inputs
@pytest.mark.parametrize("objective", [ObjectiveSettings(alpha_T=0.5), WITHOUT_LR], ids=["LR", "ELBO"])
@pytest.mark.parametrize("blocks", [BLOCKS, TWICE], ids=["few", "many"])
def test_one_graph_serves_all_blocks_of_a_shape(blocks: dict[str, str], objective: ObjectiveSettings) -> None:
    model = VeryDeepVAE(replace(SMALL, **blocks)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = total(model, objective)
    gradients = {name: weight.grad for name, weight in model.named_parameters()}
    model.zero_grad()
    graphs = []

    def counted(graph: fx.GraphModule, examples: Sequence[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    for part in model.compile_parts():
        part.compile(dynamic=False, fullgraph=True, backend=counted)
    torch.testing.assert_close(total(model, objective), plain)
    assert len(graphs) == 6  # encoder and decoder, at 8, 4 and 1
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name])
