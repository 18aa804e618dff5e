"""Notice that another process of a run has failed, vanished or stands still.

A process that waits in a reduction cannot see why it waits, but a thread beside it can. Once a second each process
writes what it does into a store that all share, and reads what the others do. The first process that sees something
wrong writes a sentence into the store. Then every process ends with that sentence, whatever it is waiting for.
"""

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from torch.distributed.distributed_c10d import Store

from vdvae_lr.errors import EXIT_PEER_LOST

BEAT_S = 1.0
"""How often a process writes what it does."""
SILENT_S = 20.0
"""A process that is silent for so long is gone. A shorter time would end healthy runs on an overloaded machine."""
SILENT_AFTER_BROKEN_CONNECTION_S = 5.0
"""The same after this process has lost a connection."""
_FAILED = "failed"
_HOST_GONE = "process 0, or the launcher beside it, does not answer"
_SHOW_CURSOR = "\x1b[?25h\n"


@dataclass
class _Peer:
    """What is known of another process."""

    beat: int = -1
    heard_at: float = field(default_factory=time.monotonic)
    doing: str = "starting"
    still_for_s: float = 0.0
    ended: bool = False


def leave_now(sentence: str) -> None:
    """End this process at once: its main thread may never come back from a reduction."""
    print(f"error: {sentence}", file=sys.stderr, flush=True)
    if sys.stdout.isatty():
        sys.stdout.write(_SHOW_CURSOR)  # a progress bar hides it
    sys.stdout.flush()
    os._exit(EXIT_PEER_LOST)


class PeerWatch:
    """Tells the other processes of a run what this one does, and ends this one when another is lost.

    Args:
        store: shared by all processes, through a connection that nothing else uses.
        rank: of this process.
        size: number of processes.
        stuck_after_s: the run ends if a process does the same thing for so long.
        leave: ends this process with a sentence.
    """

    def __init__(
        self,
        store: Store,
        rank: int,
        size: int,
        stuck_after_s: float = math.inf,
        leave: Callable[[str], None] = leave_now,
    ) -> None:
        self._store = store
        self._rank = rank
        self._peers = {other: _Peer() for other in range(size) if other != rank}
        self._stuck_after_s = stuck_after_s
        self._leave = leave
        self._doing, self._since = "starting", time.monotonic()
        self._beat = 0
        self._ending = False
        self._failed = False  # this process has failed, and reports that itself
        self._silent_s = SILENT_S
        self._stopped = threading.Event()
        self._round_at = time.monotonic()
        self._threads = [
            threading.Thread(target=self._watch, name="peer watch", daemon=True),
            threading.Thread(target=self._watch_the_store, name="peer store watch", daemon=True),
        ]

    def start(self) -> None:
        """Begin to tell the others, and to watch each of them from its first word on."""
        self._say()
        for thread in self._threads:
            thread.start()

    def at(self, doing: str) -> None:
        """Say what this process does from now on; costs nothing."""
        self._doing, self._since = doing, time.monotonic()

    def missing(self) -> list[int]:
        """The processes that have not written anything yet; raises RuntimeError if the store is gone."""
        return [rank for rank, peer in self._peers.items() if peer.beat < 0 and not self._store.check([_key(rank)])]

    def fail(self, cause: str, *, linger: bool = True) -> None:
        """Tell the others that this process ends, and why.

        Lingers until they have read it, because the store may end with this process.
        """
        self._failed = True
        sentence = f"process {self._rank} failed: {cause}"
        teller = threading.Thread(target=self._announce_if_possible, args=(sentence,), daemon=True)
        teller.start()
        teller.join(2.5 * BEAT_S)  # does not wait for a store that does not answer
        if linger:
            time.sleep(2.5 * BEAT_S)

    def await_verdict(self) -> None:
        """After a broken connection: wait until the thread has found out who is gone. Returns only if nobody is."""
        self._silent_s = SILENT_AFTER_BROKEN_CONNECTION_S
        self._stopped.wait(SILENT_AFTER_BROKEN_CONNECTION_S + 3 * BEAT_S)

    def ending(self) -> None:
        """From now on the others may leave."""
        self._ending = True
        self.at("ended")

    def stop(self) -> None:
        """End the threads, after all processes have called `ending`.

        Python aborts at its end if a thread is then still inside the store. On a machine that stands still at times, a
        thread takes seconds to come out. The wait is limited, since the store's host may be frozen.
        """
        self._stopped.set()
        for thread in self._threads:
            thread.join(SILENT_S)

    def _watch(self) -> None:
        last_round = time.monotonic()
        while not self._stopped.wait(BEAT_S):
            now = time.monotonic()
            if now - last_round > 5 * BEAT_S:  # this process itself stood still, so silence proves nothing
                for peer in self._peers.values():
                    peer.heard_at = now
            last_round = now
            try:
                self._say()
                self._listen()
                verdict = self._verdict()
            except RuntimeError:  # the store's host, process 0 or its launcher, is gone
                verdict = None if self._ending else _HOST_GONE
            if verdict is not None and not (self._failed or self._stopped.is_set()):
                self._leave(f"{verdict}; process {self._rank} ends with it.")
                return
            self._round_at = time.monotonic()

    def _watch_the_store(self) -> None:
        """Notice a store whose host is frozen or cut off: it answers nothing, so `_watch` gets no error and hangs."""
        last_look = time.monotonic()
        while not self._stopped.wait(BEAT_S):
            now = time.monotonic()
            if now - last_look > 5 * BEAT_S:
                self._round_at = now
            last_look = now
            if now - self._round_at > self._silent_s and not (self._ending or self._failed):
                self._leave(f"{_HOST_GONE} for {now - self._round_at:.0f} s; process {self._rank} ends with it.")
                return

    def _say(self) -> None:
        self._beat += 1
        record = [self._beat, self._doing, time.monotonic() - self._since, self._ending]
        self._store.set(_key(self._rank), json.dumps(record))

    def _listen(self) -> None:
        for rank, peer in self._peers.items():
            if not self._store.check([_key(rank)]):
                continue
            beat, doing, still_for_s, ended = json.loads(self._store.get(_key(rank)))
            if beat != peer.beat:
                peer.beat, peer.heard_at = beat, time.monotonic()
                peer.doing, peer.still_for_s, peer.ended = doing, still_for_s, ended

    def _verdict(self) -> str | None:
        """The sentence that this process has to end with; None if all is well."""
        if self._store.check([_FAILED]):
            return self._store.get(_FAILED).decode()
        now = time.monotonic()
        for rank, peer in self._peers.items():
            silence = now - peer.heard_at
            if peer.beat >= 0 and silence > self._silent_s and not (peer.ended or self._ending):
                return self._announce(
                    f"process {rank} has not been heard of for {silence:.0f} s (last: {peer.doing}): killed, or its "
                    "machine or the network failed"
                )
        still = [now - self._since, *(peer.still_for_s for peer in self._peers.values() if not peer.ended)]
        if max(still) > self._stuck_after_s and not self._ending:
            return self._announce(f"no progress for {max(still):.0f} s ({self._whereabouts(now)})")
        return None

    def _whereabouts(self, now: float) -> str:
        places = {rank: (peer.doing, peer.still_for_s) for rank, peer in self._peers.items()}
        places[self._rank] = self._doing, now - self._since
        return "; ".join(
            f"process {rank}: {doing}, for {still:.0f} s" for rank, (doing, still) in sorted(places.items())
        )

    def _announce_if_possible(self, sentence: str) -> None:
        with suppress(RuntimeError):  # if the store is gone, the others notice that
            self._announce(sentence)

    def _announce(self, sentence: str) -> str:
        """Write what went wrong, unless another process was first; returns the sentence of the first."""
        return self._store.compare_set(_FAILED, "", sentence).decode()


def _key(rank: int) -> str:
    return f"place/{rank}"
