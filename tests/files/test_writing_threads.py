"""Files are written beside the caller, a bounded number at a time, and no error is lost."""

from functools import partial
from pathlib import Path
from threading import Barrier, Event, Thread

import pytest

from vdvae_lr.errors import InputError
from vdvae_lr.files.whole_file import write_whole
from vdvae_lr.files.writing_threads import WritingThreads

PATIENCE_S = 60.0


def test_calls_run_at_the_same_time_beside_the_caller() -> None:
    together = Barrier(3)  # two writers and the caller
    with WritingThreads(2) as writing:
        for _ in range(2):
            writing.add(partial(together.wait, PATIENCE_S))
        together.wait(PATIENCE_S)
        writing.wait()


def test_few_calls_wait_at_once() -> None:
    go_on, begun = Event(), []
    with WritingThreads(1) as writing:

        def add_many() -> None:
            for number in range(20):
                writing.add(partial(go_on.wait, PATIENCE_S))
                begun.append(number)

        caller = Thread(target=add_many)
        caller.start()
        caller.join(0.2)
        held = len(begun)
        go_on.set()
        caller.join(PATIENCE_S)
    assert 1 < held < 10 and len(begun) == 20


@pytest.mark.parametrize("next_call", ["add", "wait"])
def test_the_next_call_raises_the_error_of_an_earlier_one(tmp_path: Path, next_call: str) -> None:
    (tmp_path / "file").write_bytes(b"no folder")
    failed = Event()
    with pytest.raises(InputError, match="file/inner cannot be written"), WritingThreads(1) as writing:
        writing.add(partial(write_whole, tmp_path / "file" / "inner", b""))
        writing.add(failed.set)
        assert failed.wait(PATIENCE_S)
        writing.add(failed.set) if next_call == "add" else writing.wait()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interruption_leaves_whole_files_only(tmp_path: Path, error: type[BaseException]) -> None:
    running, go_on = Event(), Event()

    def slow() -> None:
        running.set()
        go_on.wait(PATIENCE_S)
        write_whole(tmp_path / "slow", b"whole")

    with pytest.raises(error), WritingThreads(1) as writing:
        writing.add(slow)
        writing.add(partial(write_whole, tmp_path / "never", b""))
        assert running.wait(PATIENCE_S)
        Thread(target=lambda: (go_on.wait(0.05), go_on.set())).start()
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["slow"]
    assert (tmp_path / "slow").read_bytes() == b"whole"
