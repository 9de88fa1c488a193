"""A stand-in for a CUDA graph on the CPU: repeats recorded operations on the tensors of the recording."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class FakeGraph:
    """Numbers of the host are part of the recording, tensors are read where they lie, and recording changes nothing."""

    def __init__(self) -> None:
        self.replays = 0
        self._calls: list[tuple[Any, Sequence[Any], Mapping[str, Any], list[Tensor]]] = []

    def capture(self, work: Callable[[], None]) -> None:
        recorder = _Recorder()
        try:
            with recorder:
                work()
        finally:
            for tensor, before in reversed(recorder.overwritten):
                tensor.copy_(before)
        self._calls = recorder.calls

    def replay(self) -> None:
        self.replays += 1
        for operator, args, kwargs, results in self._calls:
            for result, again in zip(results, tensors(operator(*args, **kwargs)), strict=True):
                if result.data_ptr() != again.data_ptr():
                    result.copy_(again)


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch does not annotate it
    """Keeps the operations, and what they overwrite."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, Sequence[Any], Mapping[str, Any], list[Tensor]]] = []
        self.overwritten: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        arguments = func._schema.arguments
        given = {argument.name: value for argument, value in zip(arguments, args, strict=False)} | dict(kwargs)
        for argument in arguments:
            if argument.alias_info is not None and argument.alias_info.is_write:
                self.overwritten += [(tensor, tensor.clone()) for tensor in tensors(given.get(argument.name))]
        result = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, tensors(result)))
        return result


def tensors(value: object) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
