"""How the processes of a run find each other: all connect to one store, say that they are there, and wait for the rest.

A process that waits says for whom, reacts to Ctrl-C at once, and gives up after ten minutes.
"""

import socket
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from datetime import timedelta
from threading import Thread
from typing import TypeVar

from torch import distributed
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # documented, but not listed

from vdvae_lr.errors import InputError, first_line
from vdvae_lr.processes.launchers import Place
from vdvae_lr.processes.watch import PeerWatch

T = TypeVar("T")

LIMIT_S = 600.0
"""How long a process waits for the others. The nodes of one job may start minutes apart."""
_NOTICES_S = (6.0, 60.0, 300.0)  # seconds of waiting after which a process says for whom
_LOOK_EVERY_S = 0.2
_MOST_NAMED = 8


def connected(place: Place) -> TCPStore:
    """A new connection to the store that all processes share. Process 0 or the launcher hosts the store.

    Raises:
        InputError: the store cannot be reached, or its port is taken.
    """
    if place.rank == 0 and not place.launcher_hosts:
        return _opened(place, hosts=True)
    patience = _Patience(place)
    # Tried in Python first: torch would print each failed attempt, and not react to Ctrl-C.
    while trouble := _trouble(place):
        patience.wait_for(f"{'the launcher' if place.launcher_hosts else 'process 0'} ({trouble})")
    return joined_store(place)


def _trouble(place: Place) -> str:
    """Why nothing can be reached at the address; empty if something answers."""
    try:
        socket.create_connection((place.address, place.port), timeout=2).close()
    except OSError as error:
        return error.strerror or str(error)
    return ""


def joined_store(place: Place) -> TCPStore:
    """One more connection to the store, after `connected`; raises InputError if another program answers there."""
    return _opened(place, hosts=False)


def _opened(place: Place, hosts: bool) -> TCPStore:
    limit = timedelta(seconds=LIMIT_S)
    # In a thread: if another program answers, TCPStore waits for ever and does not react to Ctrl-C.
    store = begun(lambda: TCPStore(place.address, place.port, is_master=hosts, timeout=limit, wait_for_workers=False))
    patience = _Patience(place)
    while not wait([store], timeout=_LOOK_EVERY_S).done:
        patience.wait_for("an answer")
    try:
        return store.result()
    except distributed.DistError as error:
        doing = "cannot offer a place to meet" if hosts else "cannot meet the others"
        raise InputError(
            f"process {place.rank} of {place.size} {doing} at {place.address}:{place.port} "
            f"({first_line(error)}); end what else runs there, or {place.remedy}."
        ) from None


def wait_for_all(place: Place, watch: PeerWatch) -> None:
    """Return when every process has come to the store; raises InputError if some do not."""
    patience = _Patience(place, speaks=place.rank == 0)
    while missing := watch.missing():
        watch.at("waiting for all processes to start")
        patience.wait_for(_named(missing, place.size))


def _named(missing: Sequence[int], size: int) -> str:
    names = ", ".join(map(str, missing[:_MOST_NAMED])) + (", …" if len(missing) > _MOST_NAMED else "")
    return f"{len(missing)} of {size} processes (number {names})"


class _Patience:
    """Waits in short turns, so that Ctrl-C works. Says now and then what it waits for, and gives up at the limit."""

    def __init__(self, place: Place, speaks: bool = True) -> None:
        self._place = place
        self._start = time.monotonic()
        self._notices = list(_NOTICES_S) if speaks else []

    def wait_for(self, awaited: str) -> None:
        """Wait one turn; raises InputError when the limit has passed."""
        place, waited = self._place, time.monotonic() - self._start
        where = f"{awaited}, at {place.address}:{place.port}"
        if waited > LIMIT_S:
            raise InputError(
                f"process {place.rank} of {place.size} waited {LIMIT_S / 60:g} minutes in vain for {where}; check that "
                f"all were started and that the machines reach each other, or {place.remedy}."
            )
        if self._notices and waited > self._notices[0]:
            del self._notices[0]
            print(
                f"Process {place.rank} of {place.size} has waited {waited:.0f} s for {where}. If they were not "
                f"started: {place.remedy}.",
                file=sys.stderr,
                flush=True,
            )
        time.sleep(_LOOK_EVERY_S)


def begun(action: Callable[[], T]) -> Future[T]:
    """Start `action` in a daemon thread: neither Ctrl-C nor the end of the program waits for it."""
    work: Future[T] = Future()

    def settle() -> None:
        try:
            work.set_result(action())
        except BaseException as error:
            work.set_exception(error)

    Thread(target=settle, daemon=True).start()
    return work
