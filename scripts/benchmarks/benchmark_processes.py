"""What a second process, the bookkeeping and the checkpoints cost a training step, on a CPU under Linux.

    python scripts/benchmarks/benchmark_processes.py                       all three parts, for the cifar10 preset
    python scripts/benchmarks/benchmark_processes.py --scaling --images 4  two processes against one, 4 images a process
    python scripts/benchmarks/benchmark_processes.py --overhead --steps 5  average, skip rule, metrics, log, display
    python scripts/benchmarks/benchmark_processes.py --saving --saves 8    the steps around a save, in a real run

`benchmark.py` measures the step itself. `docs/scaling.md` works out what reductions cost on many cards.
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

SCALING_TARGET = 0.85  # t1 / t2 at the same images a process, at least

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
    """One of two processes: take a turn whenever the link names one, and send back its milliseconds, until None.

    The same model steps in every turn, and only the world it belongs to changes: weights, memory and images are equal.
    """
    os.sched_setaffinity(0, {core})  # before any thread is started: they inherit it
    torch.set_num_threads(1)
    with joined_world("cpu") as pair:
        _serve(link, pair, settings)


def _serve(link: Connection, pair: World, settings: Settings) -> None:
    single = World(0, 1, pair.device)
    training = build_training(settings, pair, StartWeights(None, None))
    batch = replace(generated_images(settings.model, settings.run.n_batch), micro_batch=pair.rank)
    iteration = 0
    while (turn := link.recv()) is not None:
        if turn != "alone":
            pair.highest(0)  # both start at once
        training.world = pair if turn == "together" else single
        start = time.perf_counter()
        if turn == "reduction":
            pair.all_reduce_mean_(training.optimiser.weights.gradients)
        else:
            training(iteration, 1.0, [batch])
        link.send(MILLISECONDS * (time.perf_counter() - start))
        iteration += 1


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def two_processes(cores: Sequence[int], settings: Settings) -> Iterator[list[Connection]]:
    """Links to two processes that `serve_steps`, each with a core and one thread; ended at the end, however it ends."""
    context = multiprocessing.get_context("spawn")
    launched = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "OMP_NUM_THREADS": "1"}
    links, children = [], []
    try:
        for rank, core in enumerate(cores):
            here, there = context.Pipe()
            child = context.Process(target=serve_steps, args=(there, core, settings), daemon=True)
            with mock.patch.dict(os.environ, launched | {"RANK": str(rank), "LOCAL_RANK": str(rank)}):
                child.start()
            there.close()  # the child has its own end; this one would hide the child's death
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
    """Milliseconds until the slower of the processes is done."""
    for link in links:
        link.send(turn)
    return max(link.recv() for link in links)


def measure_round(links: Sequence[Connection], number: int) -> dict[Turn, float]:
    """Each turn once: on either core alone from round to round, and in either order, so that drift cancels."""
    order = TURNS if number % 2 else TURNS[::-1]
    return {turn: take_turn([links[number % 2]] if turn == "alone" else links, turn) for turn in order}


def share_a_core(cores: Sequence[int]) -> bool:
    """Whether the system says that these are hardware threads of one physical core."""
    path = Path(f"/sys/devices/system/cpu/cpu{cores[0]}/topology/thread_siblings_list")
    if not path.is_file():
        return False
    siblings: set[int] = set()
    for part in path.read_text(encoding="utf-8").strip().split(","):
        first, _, last = part.partition("-")
        siblings |= set(range(int(first), int(last or first) + 1))
    return set(cores) <= siblings


def measure_scaling(report: Report, preset: str, images: int, round_count: int) -> None:
    """Weak scaling of the ELBO step from one process to two, each with a core of its own and one thread."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        report.line("\nScaling needs two cores; this process may use one only.")
        return
    with two_processes(cores, elbo_settings(preset, images)) as links:
        for number in range(2):  # the first step on each core allocates
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
    """What the second process brings, and where the rest goes."""
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
        f"\nCores {cores[0]} and {cores[1]} {shared}, as far as the system says. A time is that of the slower process. "
        "In each round each row is measured once, one after another; the single process runs on either core in turn. "
        "It has the machine's memory bandwidth and cache to itself, which two processes share: "
        "the first factor is what that costs, and no communication could win it back."
    )


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scaling", action="store_true", help="two processes against one")
    parser.add_argument("--overhead", action="store_true", help="what bookkeeping costs")
    parser.add_argument("--saving", action="store_true", help="what checkpoints cost the steps around them")
    parser.add_argument("--preset", default="cifar10", help="the model (default: cifar10)")
    parser.add_argument("--images", type=int, default=2, help="a process, of --scaling (default: 2)")
    parser.add_argument("--steps", type=int, default=9, help="rounds, or measured steps of --overhead (default: 9)")
    parser.add_argument("--saves", type=int, default=7, help="checkpoints of --saving (default: 7)")
    parser.add_argument("--folder", type=path_of, help="where --saving writes (default: the system's temporary folder)")
    parser.add_argument("--out", type=path_of, help="file to write the tables to as well")
    options = parser.parse_args()
    if min(options.steps, options.images, options.saves) < 1:
        parser.error("--steps, --images and --saves must be at least 1")
    if not hasattr(os, "sched_setaffinity"):
        parser.error("processes can be given a core of their own on Linux only")
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
