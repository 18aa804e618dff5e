"""Measure what a second process, bookkeeping and checkpoints add to a training step, on a CPU under Linux.

    python scripts/benchmarks/benchmark_processes.py                       all three parts, for the cifar10 preset
    python scripts/benchmarks/benchmark_processes.py --scaling --images 4  one process and two, 4 images each
    python scripts/benchmarks/benchmark_processes.py --overhead --steps 5  EMA, skip rule, metrics, log, display
    python scripts/benchmarks/benchmark_processes.py --saving --saves 8    the steps around a save, in a real run

`benchmark.py` measures the step itself. `docs/scaling.md` computes the cost of reductions on many GPUs.
"""

import argparse
import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Literal
from unittest import mock

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # a checkout need not be installed

from benchmark import Report, describe_machine, generated_images
from bookkeeping import MILLISECONDS, elbo_settings, measure_overhead, measure_saving

from vdvae_lr.files.paths import path_of
from vdvae_lr.processes.world import World, joined_world
from vdvae_lr.training.build import StartWeights, build_training
from vdvae_lr.training.settings import Settings

SCALING_TARGET = 0.85  # goal: t1 / t2 is at least this, with equal numbers of images in each process

Turn = Literal["alone", "apart", "together", "reduction"]
TURNS: tuple[Turn, ...] = ("alone", "apart", "together", "reduction")
TURN_WORDS: dict[Turn, str] = {
    "alone": "1 process, the other core idle",
    "apart": "2 processes, nothing reduced between them",
    "together": "2 processes, gradients reduced (gloo)",
    "reduction": "the reduction alone",
}
STEP_COLUMNS = ("what runs", "median, ms", "min-max, ms", "images/s, all processes")


def serve_steps(link: Connection, core: int, settings: Settings) -> None:
    """Run one of two processes: take the turn that the link names, send back its milliseconds, and stop at None.

    The same model steps in every turn, so weights, memory and images are equal. Only its world changes.
    """
    os.sched_setaffinity(0, {core})  # before any thread starts, because threads inherit it
    torch.set_num_threads(1)
    with joined_world("cpu") as pair:
        _serve(link, pair, settings)


def _serve(link: Connection, pair: World, settings: Settings) -> None:
    single = World(0, 1, pair.device)
    training = build_training(settings, pair, StartWeights(None, None))
    batch = replace(generated_images(settings.model, settings.run.images_at_once), micro_batch=pair.rank)
    iteration = 0
    while (turn := link.recv()) is not None:
        if turn != "alone":
            pair.highest(0)  # wait for each other, so that both start at the same time
        training.world = pair if turn == "together" else single
        start = time.perf_counter()
        if turn == "reduction":
            pair.all_reduce_mean_(training.optimiser.weights.gradients)
        else:
            training(iteration, 1.0, [batch])
        link.send(MILLISECONDS * (time.perf_counter() - start))
        iteration += 1


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def two_processes(cores: Sequence[int], settings: Settings) -> Iterator[list[Connection]]:
    """Start two processes that run `serve_steps`, each with one core and one thread; yield links to them; end them."""
    context = multiprocessing.get_context("spawn")
    launched = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    links, children = [], []
    try:
        for rank, core in enumerate(cores):
            here, there = context.Pipe()
            child = context.Process(target=serve_steps, args=(there, core, settings), daemon=True)
            with mock.patch.dict(os.environ, launched | {"RANK": str(rank), "LOCAL_RANK": str(rank)}):
                child.start()
            there.close()  # an open end here would hide that the child has died
            links.append(here)
            children.append(child)
        yield links
        for link in links:
            link.send(None)
        for child in children:
            child.join(timeout=30)
    finally:
        for child in children:
            child.terminate()
            child.join()


def take_turn(links: Sequence[Connection], turn: Turn) -> float:
    """Milliseconds until the slower process is done."""
    for link in links:
        link.send(turn)
    return max(link.recv() for link in links)


def measure_round(links: Sequence[Connection], number: int) -> dict[Turn, float]:
    """Each turn once. The core that steps alone and the order change from round to round, so that drift cancels."""
    order = TURNS if number % 2 else TURNS[::-1]
    return {turn: take_turn([links[number % 2]] if turn == "alone" else links, turn) for turn in order}


def share_a_core(cores: Sequence[int]) -> bool:
    """Whether these cores are hardware threads of one physical core, as far as the system says."""
    path = Path(f"/sys/devices/system/cpu/cpu{cores[0]}/topology/thread_siblings_list")
    if not path.is_file():
        return False
    siblings: set[int] = set()
    for part in path.read_text(encoding="utf-8").strip().split(","):
        first, _, last = part.partition("-")
        siblings |= set(range(int(first), int(last or first) + 1))
    return set(cores) <= siblings


def measure_scaling(report: Report, preset: str, images: int, round_count: int) -> None:
    """Measure weak scaling of the ELBO step from one process to two, each with one core and one thread."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        report.line("\nScaling needs two cores; this process may use only one.")
        return
    with two_processes(cores, elbo_settings(preset, images)) as links:
        for number in range(2):  # the first step on each core allocates memory
            measure_round(links, number)
        rounds = [measure_round(links, number) for number in range(round_count)]
    title = f"{preset}, ELBO, float32, {images} image(s) a process, 1 core and 1 thread a process, {round_count} rounds"
    report.table(title, STEP_COLUMNS)
    for turn in TURNS:
        values = [each[turn] for each in rounds]
        seen = {"alone": images, "reduction": 0}.get(turn, 2 * images)
        speed = f"{MILLISECONDS * seen / median(values):.2f}" if seen else "-"
        report.row(TURN_WORDS[turn], f"{median(values):.0f}", f"{min(values):.0f}-{max(values):.0f}", speed)
    report_efficiency(report, cores, rounds)


def report_efficiency(report: Report, cores: Sequence[int], rounds: Sequence[dict[Turn, float]]) -> None:
    """Report the weak-scaling efficiency, and its two factors."""
    middle = {turn: median(each[turn] for each in rounds) for turn in TURNS}
    each_round = sorted(each["alone"] / each["together"] for each in rounds)
    report.line(
        f"\nWeak-scaling efficiency t1/t2: {middle['alone'] / middle['together']:.3f} from the medians "
        f"(the rounds' own: median {median(each_round):.3f}, {each_round[0]:.3f}-{each_round[-1]:.3f}). "
        f"Goal: at least {SCALING_TARGET}."
    )
    report.line(
        f"Shared memory and clock: {middle['alone'] / middle['apart']:.3f} (1 process / 2 that reduce nothing). "
        f"Reduction and waiting: {middle['apart'] / middle['together']:.3f} (2 that reduce nothing / 2 that do)."
    )
    shared = "are two hardware threads of one physical core" if share_a_core(cores) else "share no physical core"
    report.line(
        f"\nAs far as the system says, cores {cores[0]} and {cores[1]} {shared}. A time is that of the slower process. "
        "Each round measures each row once, one after another; the single process runs on either core in turn. "
        "A single process has the machine's memory bandwidth and cache to itself, and two processes share them. "
        "The first factor is the cost of this sharing, which no communication could win back."
    )


def main() -> int:
    """Run the parts that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scaling", action="store_true", help="compare one process with two")
    parser.add_argument("--overhead", action="store_true", help="measure the cost of bookkeeping")
    parser.add_argument("--saving", action="store_true", help="measure the steps around checkpoints")
    parser.add_argument("--preset", default="cifar10", help="preset of the model (default: cifar10)")
    parser.add_argument("--images", type=int, default=2, help="images in each process, for --scaling (default: 2)")
    parser.add_argument("--steps", type=int, default=9, help="rounds of --scaling, steps of --overhead (default: 9)")
    parser.add_argument("--saves", type=int, default=7, help="checkpoints, for --saving (default: 7)")
    parser.add_argument("--folder", type=path_of, help="folder for --saving (default: the system's temporary folder)")
    parser.add_argument("--out", type=path_of, help="also write the tables to this file")
    options = parser.parse_args()
    if min(options.steps, options.images, options.saves) < 1:
        parser.error("--steps, --images and --saves must be at least 1")
    if not hasattr(os, "sched_setaffinity"):
        parser.error("this needs Linux, where a process can be bound to one core")
    everything = not (options.scaling or options.overhead or options.saving)
    report = Report(options.out)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    report.line(f"# Benchmark\n\n`{' '.join(['python', *sys.argv])}`\n\n{describe_machine(torch.device('cpu'))}")
    report.line(f"\nLoad averages when it began (1, 5, 15 minutes): {load}")
    if options.scaling or everything:
        measure_scaling(report, options.preset, options.images, options.steps)
    if options.overhead or everything:
        measure_overhead(report, options.preset, options.steps)
    if options.saving or everything:
        measure_saving(report, options.preset, options.saves, options.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
