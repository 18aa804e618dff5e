"""A model's parameters and running statistics in one flat buffer.

Weights, gradients and EMA each lie in one buffer. So a step needs one all-reduce, one norm, one AdamW and one average,
whatever the number of tensors (1,436 in the cifar10 configuration). The model's own parameters are views into the
buffer. So are its running statistics: floating-point buffers in its state, such as those of batch normalisation.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from vdvae_lr.hub.weight_folder import running_statistics

_ALIGNMENT = 64  # elements; in float32 every tensor starts on a 256-byte boundary, which convolution kernels prefer


class FlatWeights:
    """Owns `state` (N + M,) and its gradient, and knows where each of the model's tensors lies in such a buffer.

    The model must already be on its device and in its memory format: strides are kept.

    Args:
        model: the model.
        own_part: names of parameters that are a part of their own, and come first; by default all are one part.

    Attributes:
        state: (N + M,) `values`, then `statistics`.
        values: (N,) all parameters.
        parts: views into `values` with their gradients, one or two, which can be updated one by one.
        gradients: (N,) their gradient.
        statistics: (M,) all running statistics. The model changes them when it computes in training mode.
        message: (N + M + 64,) what the processes reduce at each step: `gradients`, `statistics_change`,
            `lacks_images`, then padding.
        statistics_change: (M,) what the micro-batches of a step add to the statistics.
        lacks_images: () above 0 after the reduction if some process could not read its images of this step.
    """

    def __init__(self, model: nn.Module, own_part: Collection[str] = ()) -> None:
        self._slots: dict[str, tuple[int, torch.Size, tuple[int, ...]]] = {}
        parameters = dict(sorted(model.named_parameters(), key=lambda item: item[0] not in own_part))
        statistics = running_statistics(model)
        split = self._allot({name: tensor for name, tensor in parameters.items() if name in own_part}, 0)
        count = self._allot({name: tensor for name, tensor in parameters.items() if name not in own_part}, split)
        size = self._allot(statistics, count)
        any_one = next(iter(parameters.values()))
        self.state = torch.zeros(size, dtype=any_one.dtype, device=any_one.device)
        self.values, self.statistics = nn.Parameter(self.state[:count]), self.state[count:]
        self.message = torch.zeros(size + _ALIGNMENT, dtype=any_one.dtype, device=any_one.device)
        self.gradients, self.statistics_change = self.message[:count], self.message[count:size]
        self.lacks_images = self.message[size]
        self.values.grad = self.gradients
        self.parts = [self._part(0, split), self._part(split, count)] if split else [self.values]
        self._parameters = list(parameters.values())
        self._gradient_views = list(self.named(self.gradients).values())
        tensors = parameters | statistics
        for name, view in self.named(self.state).items():
            view.copy_(tensors[name].data)
            tensors[name].data = view

    def _part(self, start: int, end: int) -> nn.Parameter:
        part = nn.Parameter(self.state[start:end])
        part.grad = self.gradients[start:end]
        return part

    def _allot(self, tensors: Mapping[str, Tensor], start: int) -> int:
        """Give each tensor its place from `start` on; returns where the next one may begin."""
        for name, tensor in tensors.items():
            own = isinstance(tensor, nn.Parameter)  # a buffer may be part of a larger tensor
            self._slots[name] = (start, tensor.shape, (tensor if own else tensor.contiguous()).stride())
            start += -(-tensor.numel() // _ALIGNMENT) * _ALIGNMENT
        return start

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

    @contextmanager
    def collecting_statistics(self, share: float) -> Iterator[None]:
        """Inside, forward and backward, the model may change its running statistics.

        Afterwards they are as before, and `statistics_change` has this share of the change: each micro-batch starts
        from the same statistics, so a step does not depend on how processes share its micro-batches.
        """
        if not len(self.statistics):  # as in a VDVAE
            yield
            return
        before = self.statistics.clone()
        try:
            yield
            change = torch.where(self.statistics == before, 0, self.statistics - before)  # a constant may be infinite
            self.statistics_change.add_(change, alpha=share)
        finally:
            self.statistics.copy_(before)

    def named(self, buffer: Tensor) -> dict[str, Tensor]:
        """Views into a buffer, with the tensors' shapes and strides, by name.

        Those of all tensors in a buffer (N + M,), and of the parameters in a buffer (N,).
        """
        size = buffer.numel()
        slots = {name: slot for name, slot in self._slots.items() if slot[0] < size}
        return {name: buffer.as_strided(shape, stride, start) for name, (start, shape, stride) in slots.items()}

    def buffer_from(self, state: Mapping[str, Tensor]) -> Tensor:
        """A new buffer (N,) with the tensors of `state`, which has exactly the parameters' names and shapes."""
        buffer = torch.zeros_like(self.values.data)
        self.load(buffer, state)
        return buffer

    def load(self, buffer: Tensor, state: Mapping[str, Tensor]) -> None:
        """Copy `state` into an existing buffer (raises KeyError for other names than that of the buffer's tensors)."""
        views = self.named(buffer)
        if state.keys() != views.keys():
            raise KeyError(f"names differ: {sorted(state.keys() ^ views.keys())[:4]}")
        for name, view in views.items():
            view.copy_(state[name])

    @contextmanager
    def holding(self, other: Tensor) -> Iterator[None]:
        """Inside, the model computes with the state `other` (N + M,); afterwards, or after an error, with its own."""
        own = self.state.clone()
        self.state.copy_(other)
        try:
            yield
        finally:
            self.state.copy_(own)
