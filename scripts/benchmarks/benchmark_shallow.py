"""Compare training steps of the shallow study's VAEs: with plain torch, with LR, with an injective decoder, refined.

    python scripts/benchmarks/benchmark_shallow.py
    python scripts/benchmarks/benchmark_shallow.py --images 32 --rounds 9 --device cuda

Each round times one step of each kind in turn, so that a slow moment of the machine is shared. The table has medians
over the rounds, of the ratio to the VAE's step of the same round. "Operations" is the same ratio of the multiplications
and additions in convolutions and matrix products, as torch counts them.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from benchmark import describe_machine

from vdvae_lr.cli.shared.config import apply_values, settings_of_presets
from vdvae_lr.datasets.loader import Batch
from vdvae_lr.hub.pretrained import ShallowVAE
from vdvae_lr.model.shallow.vae import ShallowConfig
from vdvae_lr.processes.world import World
from vdvae_lr.training.build import StartWeights, build_training

GOALS = {"VAE against plain torch": 1.1, "LRVAE": 1.9, "LIDVAE": 4.0}
"""The largest ratios that are acceptable: the first of our VAE to plain torch, the others of a step to our VAE's."""
PRESETS = {"VAE": "vae", "LRVAE": "lrvae_1", "LIDVAE": "lidvae", "SA-VAE": "sa_vae"}


def plain_step(pixels: torch.Tensor) -> Callable[[], None]:
    """A step of the same network as one writes it in plain torch: squared error and KL, Adam."""
    network = ShallowVAE(ShallowConfig()).to(pixels.device)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)

    def step() -> None:
        images = pixels.float() / 255
        mean, log_variance = network.encoder(images).chunk(2, dim=1)
        latents = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        error = (network.decoder(latents).view_as(images) - images).square().sum()
        kl = -0.5 * (1 + log_variance - mean.square() - log_variance.exp()).sum()
        optimiser.zero_grad()
        ((error + kl) / len(images)).backward()
        optimiser.step()

    return step


def our_step(preset: str, pixels: torch.Tensor, graph: bool) -> Callable[[], None]:
    """A step of a run with this preset."""
    changes = {"n_batch": len(pixels), "global_batch": len(pixels), "cuda_graph": graph}
    settings = apply_values(settings_of_presets(f"shallow/{preset}"), changes, "benchmark")
    training = build_training(settings, World(0, 1, pixels.device), StartWeights())
    batches = [Batch(pixels, np.arange(len(pixels)), 0, 0, 0)]
    return lambda: training(1, 0.5, batches)


def operations(step: Callable[[], None]) -> int:
    """Multiplications and additions of a step that is not captured in a graph."""
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def timed(step: Callable[[], None], device: torch.device) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128, help="images of a step (default: 128)")
    parser.add_argument("--rounds", type=int, default=15, help="default: 15")
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    given = parser.parse_args()
    device = torch.device(given.device)
    pixels = torch.randint(0, 256, (given.images, 1, 28, 28), dtype=torch.uint8, device=device)
    counts = {name: operations(our_step(preset, pixels, graph=False)) for name, preset in PRESETS.items()}
    counts["plain torch"] = operations(plain_step(pixels))
    steps = {name: our_step(preset, pixels, device.type == "cuda") for name, preset in PRESETS.items()}
    steps["plain torch"] = plain_step(pixels)
    for step in steps.values():
        step()
    rounds = [{name: timed(step, device) for name, step in steps.items()} for _ in range(given.rounds)]
    print(describe_machine(device))
    print(f"{given.images} images a step, {given.rounds} rounds\n")
    print("| step | time, ms | against VAE | operations |\n|---|---|---|---|")
    for name in steps:
        ratio = median(times[name] / times["VAE"] for times in rounds)
        milliseconds = 1000 * median(times[name] for times in rounds)
        print(f"| {name} | {milliseconds:.1f} | {ratio:.2f} | {counts[name] / counts['VAE']:.2f} |")
    found = {
        "VAE against plain torch": median(times["VAE"] / times["plain torch"] for times in rounds),
        **{name: median(times[name] / times["VAE"] for times in rounds) for name in ("LRVAE", "LIDVAE")},
    }
    for name, ratio in found.items():
        print(f"{'ok' if ratio <= GOALS[name] else 'ABOVE'}: {name} {ratio:.2f} (at most {GOALS[name]:g})")


if __name__ == "__main__":
    main()
