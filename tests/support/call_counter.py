"""Count the calls of a module."""

from dataclasses import dataclass

from torch import nn


@dataclass
class Calls:
    count: int = 0


def count_calls(module: nn.Module) -> Calls:
    """A counter that goes up by one at each forward pass of `module`."""
    calls = Calls()

    def raise_count(*_: object) -> None:
        calls.count += 1

    module.register_forward_pre_hook(raise_count)
    return calls
