"""Measure how other work on the cores slows a run, for each way in which OpenMP's threads can wait (CPU).

    python scripts/benchmarks/benchmark_waiting.py  the bundled model's LR step beside 0, 1 and 2 busy processes
    python scripts/benchmarks/benchmark_waiting.py --rounds 9 --seconds 8

OpenMP reads its variables when torch is imported, so each measurement is a new process. The ways take turns, so all of
them see the same state of the machine. Numbers are images a second; ratios are to one thread, alone.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

WAYS = {
    "one thread": {"OMP_NUM_THREADS": "1"},
    "spinning (OpenMP's default)": {},
    "passive (ours)": {"OMP_WAIT_POLICY": "passive"},
}
BUSY, BUSY_PROCESSES = "while True: pass", (0, 1, 2)
PRESET, WARM_UP_STEPS = "fashion", 2


def measure_here(seconds: float) -> float:
    """Measure the images a second of the preset's training step in this process."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed
    from benchmark import generated_images, settings_of

    from vdvae_lr.processes.world import start_world
    from vdvae_lr.training.build import StartWeights, build_training

    settings = settings_of(PRESET)
    training = build_training(settings, start_world("cpu"), StartWeights())
    batch = generated_images(settings.model, settings.run.images_at_once)
    start, steps = 0.0, -WARM_UP_STEPS
    while steps <= 0 or time.perf_counter() - start < seconds:
        if steps == 0:
            start = time.perf_counter()
        training(steps + WARM_UP_STEPS, 1.0, [batch])
        steps += 1
    return steps * settings.run.images_at_once / (time.perf_counter() - start)


def measure_apart(way: str, seconds: float) -> float:
    """`measure_here` in a new process, started with the environment variables of `way`."""
    unset = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    command = [sys.executable, __file__, "--here", "--seconds", str(seconds)]
    done = subprocess.run(command, env=unset | WAYS[way], capture_output=True, text=True, check=True)
    return float(done.stdout)


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Run `count` processes that only compute."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """Measure, and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each way")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of one turn")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(measure_here(options.seconds))
        return
    found: dict[tuple[int, str], list[float]] = {(busy, way): [] for busy in BUSY_PROCESSES for way in WAYS}
    for _ in range(options.rounds):
        for busy, way in found:
            with busy_processes(busy):
                found[busy, way].append(measure_apart(way, options.seconds))
    whole = median(found[0, "one thread"])
    print("| threads wait | busy processes beside | images/s, median | min-max | ratio |\n|---|---|---|---|---|")
    for (busy, way), speeds in found.items():
        spread = f"{min(speeds):.1f}-{max(speeds):.1f}"
        print(f"| {way} | {busy} | {median(speeds):.1f} | {spread} | {median(speeds) / whole:.2f} |")


if __name__ == "__main__":
    main()
