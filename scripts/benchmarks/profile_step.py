"""Show which operations take the time of our ELBO step and our LR step on this machine.

    python scripts/benchmarks/profile_step.py                                 cifar10, 4 images, float32
    OMP_NUM_THREADS=1 python scripts/benchmarks/profile_step.py --preset fashion --images 16

The time of an operation is its own, without that of the operations that it calls.
"""

import argparse
import sys

import torch
from benchmark import (
    NO_WEIGHTS,
    Report,
    StepCase,
    case_settings,
    describe_machine,
    generated_images,
)

from vdvae_lr.errors import EXIT_INPUT_ERROR, InputError
from vdvae_lr.processes.world import World, start_world
from vdvae_lr.training.build import build_training

SHOWN = 8  # operations


def profile_step(report: Report, world: World, case: StepCase) -> None:
    """Profile the second step of a configuration; the first one allocates memory."""
    training = build_training(case_settings(case), world, NO_WEIGHTS)
    batch = generated_images(training.model.config, case.images)
    training(0, 1.0, [batch])
    with torch.profiler.profile() as profile:
        training(1, 1.0, [batch])
    events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
    total = sum(event.self_cpu_time_total for event in events)
    report.table(f"{case.preset}: {case}", ("operation", "calls", "ms", "share"))
    for event in events[:SHOWN]:
        microseconds = event.self_cpu_time_total
        report.row(event.key, str(event.count), f"{microseconds / 1000:.1f}", f"{microseconds / total:.0%}")


def main() -> int:
    """Profile the steps that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="cifar10", help="model whose steps are profiled (default: cifar10)")
    parser.add_argument("--images", type=int, default=4, help="images in a step (default: 4)")
    options = parser.parse_args()
    if options.images < 1:
        parser.error("--images must be at least 1")
    report = Report()
    try:
        world = start_world("cpu")
        cases = [
            StepCase(options.images, each, "eager", precision="fp32", preset=options.preset) for each in ("ELBO", "LR")
        ]
        report.line(describe_machine(world.device))
        for case in cases:
            profile_step(report, world, case)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_INPUT_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
