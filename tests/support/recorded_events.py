"""Record what code sends to other processes, and where it waits for the device. This works on a CPU too."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_COLLECTIVES = ("c10d::", "_c10d_functional::")
# On CUDA, each of these makes the host wait for the device. A CPU runs them too, under the same names.
_WAITING_OPERATIONS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select")
_WAITING_METHODS = ("tolist", "numpy", "cpu")  # these have no operation, so watch the method


@dataclass
class Traffic:
    """The names of the events, in order."""

    collectives: list[str] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)


class _Operations(TorchDispatchMode):
    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self._traffic = traffic

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.name()
        if name.startswith(_COLLECTIVES):
            self._traffic.collectives.append(name)
        if name.startswith(_WAITING_OPERATIONS):
            self._traffic.waits.append(name)
        return func(*args, **(kwargs or {}))


class _Methods(TorchFunctionMode):
    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self._traffic = traffic

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in _WAITING_METHODS:
            self._traffic.waits.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def watched() -> Iterator[Traffic]:
    """Inside this context, record each collective and each wait of this thread, also those below torch's Python."""
    traffic = Traffic()
    with _Operations(traffic), _Methods(traffic):
        yield traffic
