"""Writing: a decode step as one function of device tensors, run eagerly or replayed as a CUDA graph.

The tokens of a text are read from the device late: the step after a token is launched before the host waits for it, so
that the device does not wait for the host.
"""

import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from core.bagel.context import Cache, TokenView
from core.bagel.flow import cuda_mark
from core.bagel.fused import KERNELS
from core.bagel.network import Network
from core.bagel.sample import next_token, uniforms
from recipes.recipe import TextSettings

log = logging.getLogger(__name__)


class DecodeStep:
    """Reads the last token of a text into the cache and selects the next one.

    All that differs between two steps is in tensors of the device, which a step advances itself. So a recorded step
    can be repeated without the host.
    """

    def __init__(self, network: Network, cache: Cache, settings: TextSettings) -> None:
        self.network = network
        self.settings = settings
        self.cache = cache
        self.token = torch.zeros(1, dtype=torch.int64, device=network.device)
        """The last token, (1,)."""
        self._counters = torch.zeros(3, dtype=torch.int64, device=network.device)
        self._position, self._tokens, self._number = (self._counters[index : index + 1] for index in range(3))
        # Without its kernel, attention needs the length on the host, where it must not be waited for.
        self._length = torch.zeros(1, dtype=torch.int64, device=network.device if KERNELS.enabled else "cpu")
        self._uniforms = torch.zeros(settings.max_new_tokens, dtype=torch.float64, device=network.device)

    def begin(self, token: int, seed: int) -> None:
        """Begin a text with the start token `token` at the end of the cache."""
        at = self.cache.end
        self.token.fill_(token)
        self._counters.copy_(torch.tensor((at.position, at.tokens, 0)))
        self._length.fill_(at.tokens + 1)
        self._uniforms.copy_(uniforms(seed, self.settings.max_new_tokens))

    def __call__(self) -> None:
        view = TokenView(self.cache, self._tokens, self._length)
        logits = self.network.logits(self.network.read_tokens(self.token, self._position, view)[0])
        uniform = self._uniforms.index_select(0, self._number)
        self.token.copy_(next_token(logits, self.settings, uniform))
        self._counters.add_(1)
        self._length.add_(1)


class Graph(Protocol):
    """Records work of the device without doing it, to do it any number of times."""

    def capture(self, work: Callable[[], None]) -> None: ...

    def replay(self) -> None: ...


class CudaGraph:
    """A CUDA graph: one launch for all kernels."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graph = torch.cuda.CUDAGraph()

    def capture(self, work: Callable[[], None]) -> None:
        # Other threads of the process may use CUDA meanwhile.
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]  # torch does not annotate it
        recording = torch.cuda.graph(self._graph, stream=stream, capture_error_mode="thread_local")
        with torch.cuda.device(self._device), recording:
            work()

    def replay(self) -> None:
        self._graph.replay()


class Writer:
    """Writes texts after the items of a cache. Not reentrant: exhaust or close the generator before the next text.

    Args:
        network: the weights.
        make_graph: makes an empty graph; None runs every step eagerly. A graph is used for as long as the settings and
            the buffers of the cache stay the same.
        ahead: the number of steps launched before the token of a step is read.
    """

    def __init__(self, network: Network, *, make_graph: Callable[[], Graph] | None, ahead: int) -> None:
        self._network = network
        self._make_graph = make_graph
        self._ahead = ahead
        self.tokens_decoded = 0
        """Tokens selected so far, including the end token of each text but not what was launched after it."""
        self._key: Hashable = None
        self._step: DecodeStep | None = None
        self._graph: Graph | None = None

    @staticmethod
    def of(network: Network, *, cuda_graphs: bool) -> "Writer":
        """The writer for the devices of `network`.

        On the CPU it reads each token at once, as a step ahead would be computed for nothing at the end of each text.
        """
        device = network.device
        if device.type != "cuda":
            return Writer(network, make_graph=None, ahead=0)
        graphs = cuda_graphs and KERNELS.enabled and network.fixed
        return Writer(network, make_graph=partial(CudaGraph, device) if graphs else None, ahead=1)

    def forget(self) -> None:
        """Release the cache and the graph of the last text."""
        self._key = self._step = self._graph = None

    @torch.inference_mode()
    def ids(self, cache: Cache, settings: TextSettings, seed: int, *, start: int, end: int) -> Iterator[int]:
        """The tokens that follow the items of `cache` and the token `start`, up to the token `end` (excluded)."""
        step = self._prepared(cache, settings)
        step.begin(start, seed)
        unread: deque[Callable[[], int]] = deque()
        for number in range(settings.max_new_tokens + self._ahead):
            if number < settings.max_new_tokens:
                self._launch(step)
                unread.append(_reading(step.token))
            if number >= self._ahead:
                token = unread.popleft()()
                self.tokens_decoded += 1
                if token == end:
                    return
                yield token

    def _prepared(self, cache: Cache, settings: TextSettings) -> DecodeStep:
        cache.reserve(tokens=settings.max_new_tokens)
        if self._step is None or self._graph is None or self._key != (settings, cache.addresses):
            self.forget()
            self._step = DecodeStep(self._network, cache, settings)
        return self._step

    def _launch(self, step: DecodeStep) -> None:
        if self._graph is not None:
            self._graph.replay()
            return
        step()  # the first one compiles and allocates what a recording can't
        if self._make_graph is not None:
            self._graph = self._captured(step, self._make_graph())
            self._key = step.settings, step.cache.addresses

    def _captured(self, step: DecodeStep, graph: Graph) -> Graph | None:
        try:
            graph.capture(step)
        except RuntimeError as error:  # such as a quantized layer that waits for the device
            log.warning("the decode step can't be captured, so that every step is launched by the host: %s", error)
            self._make_graph = None
            return None
        return graph


def _reading(token: Tensor) -> Callable[[], int]:
    """Begins to copy `token` to the host; the result waits for that copy alone, not for work launched later."""
    copied = token.to("cpu", non_blocking=True, copy=True)
    if token.device.type != "cuda":
        return lambda: int(copied)
    wait = cuda_mark(token.device)

    def read() -> int:
        wait()
        return int(copied)

    return read
