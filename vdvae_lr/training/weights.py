"""A model's parameters in one flat buffer.

Weights, gradients and EMA each lie in one buffer. So a step needs one all-reduce, one norm, one AdamW and one average,
whatever the number of tensors (1,436 in the cifar10 configuration). The model's own parameters are views into the
buffer.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_ALIGNMENT = 64  # elements; in float32 every tensor starts on a 256-byte boundary, which convolution kernels prefer


class FlatWeights:
    """Owns `values` and `gradients` (N,), and knows where each of the model's parameters lies in such a buffer.

    The model must already be on its device and in its memory format: strides are kept.

    Attributes:
        message: (N + 64,) what the processes reduce at each step: `gradients`, `lacks_images`, then padding.
        lacks_images: () above 0 after the reduction if some process could not read its images of this step.
    """

    def __init__(self, model: nn.Module) -> None:
        self._slots: dict[str, tuple[int, torch.Size, tuple[int, ...]]] = {}
        size = 0
        parameters = dict(model.named_parameters())
        for name, parameter in parameters.items():
            self._slots[name] = (size, parameter.shape, parameter.stride())
            size += -(-parameter.numel() // _ALIGNMENT) * _ALIGNMENT
        first = next(iter(parameters.values()))
        self.values = nn.Parameter(torch.zeros(size, dtype=first.dtype, device=first.device))
        self.message = torch.zeros(size + _ALIGNMENT, dtype=first.dtype, device=first.device)
        self.gradients, self.lacks_images = self.message[:size], self.message[size]
        self.values.grad = self.gradients
        self._parameters = list(parameters.values())
        self._gradient_views = list(self.named(self.gradients).values())
        for name, view in self.named(self.values.data).items():
            view.copy_(parameters[name].data)
            parameters[name].data = view

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of `loss` () to `gradients`.

        Autograd would add tensor by tensor; a few operations over all of them do the same.
        """
        loss.backward()
        found = [parameter.grad for parameter in self._parameters]
        used = [(view, new) for view, new in zip(self._gradient_views, found, strict=True) if new is not None]
        torch._foreach_add_([view for view, _ in used], [new for _, new in used])
        for parameter in self._parameters:
            parameter.grad = None

    def named(self, buffer: Tensor) -> dict[str, Tensor]:
        """Views into a buffer (N,) by parameter name, with the parameters' shapes and strides."""
        return {name: buffer.as_strided(shape, stride, start) for name, (start, shape, stride) in self._slots.items()}

    def buffer_from(self, state: Mapping[str, Tensor]) -> Tensor:
        """A new buffer with the tensors of `state`, which has exactly the model's names and shapes."""
        buffer = torch.zeros_like(self.values.data)
        self.load(buffer, state)
        return buffer

    def load(self, buffer: Tensor, state: Mapping[str, Tensor]) -> None:
        """Copy `state` into an existing buffer (raises KeyError for other names than the model's)."""
        if state.keys() != self._slots.keys():
            raise KeyError(f"names differ: {sorted(state.keys() ^ self._slots.keys())[:4]}")
        for name, view in self.named(buffer).items():
            view.copy_(state[name])

    @contextmanager
    def holding(self, other: Tensor) -> Iterator[None]:
        """Inside, the model computes with the weights of `other` (N,); afterwards, or after an error, with its own."""
        own = self.values.data.clone()
        self.values.data.copy_(other)
        try:
            yield
        finally:
            self.values.data.copy_(own)
