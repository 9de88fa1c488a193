"""The fused steps of a layer equal their formulas, as PyTorch's operations and as Triton kernels, on any capacity."""

import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from core.bagel import fused, triton_kernels
from core.bagel.layers import Frequencies

EPS = 1e-6
FIRST = 3
SEVEN_B, TINY = (28, 4, 128), (4, 2, 64)
"""Query heads, key-value heads and head dim."""
DTYPES = (torch.float32, torch.bfloat16)
HALF = (14, 2, 128)
"""Half of SEVEN_B's heads, since the interpreter computes one after the other."""
CASES = ((HALF, DTYPES[0]), (HALF, DTYPES[1]), (TINY, DTYPES[0]), ((8, 1, 80), DTYPES[1]))
TOLERANCE = {torch.float32: (1e-5, 2e-6), torch.bfloat16: (2**-6, 2e-3)}
"""Relative and absolute."""
SHARED_BYTES = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024}
"""The most that a block may use, by compute capability (CUDA programming guide)."""
REGISTERS = 65536
CHILD = """
import sys, torch
from core.bagel import triton_kernels
done = {}
for name, (kernel, arguments) in torch.load(sys.argv[1]).items():
    done[name] = getattr(triton_kernels, kernel)(*arguments), arguments
torch.save(done, sys.argv[1])
"""
"""Runs kernels on the CPU. It is a process of its own, since Triton decides that when it is imported."""

Geometry = tuple[int, int, int]
Call = tuple[str, tuple[Any, ...]]
Results = dict[str, tuple[Tensor, tuple[Any, ...]]]


def normal(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def silu_call(dtype: torch.dtype) -> Call:
    return "silu_mul", (normal(2, 2 * 1500, dtype=dtype),)


def put_call(
    geometry: Geometry, dtype: torch.dtype, tokens: int = 3, *, row: bool = False, spread: bool = True
) -> Call:
    """A block whose queries, keys and values go to strided views; with `spread`, each token has its own position."""
    heads, kv_heads, head_dim = geometry
    qkv = normal(tokens, (heads + 2 * kv_heads) * head_dim, dtype=dtype)
    weights = 1 + normal(2, head_dim, dtype=dtype, seed=1)
    positions = torch.arange(7, 7 + (tokens if spread else 1))
    by = Frequencies.of(head_dim, 1e6, torch.device("cpu")).at(positions)
    joint = torch.zeros(20, 2 * kv_heads, head_dim, dtype=dtype)
    queries = torch.zeros(2 * tokens, heads, head_dim, dtype=dtype)[::2]
    rows = slice(None) if row else slice(FIRST, FIRST + tokens)
    keys, values = joint[rows, :kv_heads], joint[rows, kv_heads:]
    at = torch.tensor([11]) if row else None
    return "norm_rotate_put", (qkv, *weights, EPS, *by, queries, keys, values, at)


def int8_call(dtype: torch.dtype, *, bias: bool | int) -> Call:
    """A row and weights whose sizes are no multiples of the blocks."""
    weight = torch.randint(-127, 128, (37, 1100), generator=torch.Generator().manual_seed(0), dtype=torch.int8)
    scale, added = normal(2, 37, dtype=dtype, seed=1) / 1000
    return "int8_row", (normal(1, 1, 1100, dtype=dtype), weight, scale, added if bias else None)


def attention_call(geometry: Geometry, dtype: torch.dtype, length: int, spare: int = 9) -> Call:
    """A token that attends to `length` rows, between rows that it must not read."""
    heads, kv_heads, head_dim = geometry
    buffers = torch.full((2, FIRST + length + spare, kv_heads, head_dim), torch.nan, dtype=dtype)
    buffers[:, FIRST : FIRST + length] = normal(2, length, kv_heads, head_dim, dtype=dtype, seed=length)
    query = normal(heads, head_dim, dtype=dtype, seed=1)
    return "decode_attention", (query, *buffers, FIRST, torch.tensor([length]))


PUTS = {
    f"{geometry} {dtype} {kind}": put_call(geometry, dtype, **options)
    for geometry, dtype in CASES
    for kind, options in (("block", {}), ("one position", {"spread": False}), ("row", {"tokens": 1, "row": True}))
}
ATTENTIONS = {
    f"{geometry} {dtype} {length}": attention_call(geometry, dtype, length)
    for geometry, dtype in CASES
    for length in (1, 200)
}
SILUS = {f"silu {dtype}": silu_call(dtype) for dtype in DTYPES}
CAPACITIES = {f"{spare} rows to spare": attention_call(TINY, torch.bfloat16, 200, spare) for spare in (0, 1, 300)}
INT8S = {f"int8 {dtype} {'bias' if bias else ''}": int8_call(dtype, bias=bias) for dtype in DTYPES for bias in (0, 1)}
CALLS = {**INT8S, **SILUS, **PUTS, **ATTENTIONS, **CAPACITIES}


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """For each of CALLS, what its Triton kernels give and its arguments afterwards."""
    path = tmp_path_factory.mktemp("calls") / "calls.pt"
    torch.save(CALLS, path)
    environment = {"TRITON_INTERPRET": "1", "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", CHILD, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return torch.load(path)  # type: ignore[no-any-return]


def check(found: Tensor, expected: Tensor, atol: float | None = None) -> None:
    """Assert that `found` is `expected`, in float64, but for the rounding of its dtype."""
    rtol, default = TOLERANCE[found.dtype]
    assert_close(found.double(), expected, rtol=rtol, atol=default if atol is None else atol)


def put_reference(arguments: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values in float64; the pairs (i, i + H/2) are complex numbers that are turned."""
    qkv, q_weight, k_weight, eps, cos, sin, queries, keys, *_ = arguments
    half = cos.shape[-1] // 2
    turn = torch.complex(cos[..., :half], sin[..., half:])[:, None]
    sizes = (queries.shape[1], keys.shape[1], keys.shape[1])
    q, k, v = qkv.double().view(len(qkv), -1, 2 * half).split_with_sizes(sizes, dim=1)

    def turned(x: Tensor, weight: Tensor) -> Tensor:
        x = x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight.double()
        pairs = torch.complex(x[..., :half], x[..., half:]) * turn
        return torch.cat((pairs.real, pairs.imag), dim=-1)

    return turned(q, q_weight), turned(k, k_weight), v


def check_put(arguments: tuple[Tensor, ...], dtype: torch.dtype) -> None:
    queries, keys, values, row = arguments[-4:]
    written = (queries, keys, values) if row is None else (queries, keys[row], values[row])
    atol = 2**-6 if dtype == torch.bfloat16 else 2e-6  # PyTorch's form also rounds between norm and rotation
    for found, expected in zip(written, put_reference(arguments), strict=True):
        check(found, expected, atol)
    if row is not None:
        others = torch.arange(len(keys)) != row
        assert not keys[others].any(), "no other row is written"
        assert not values[others].any(), "no other row is written"


def attention_reference(query: Tensor, keys: Tensor, values: Tensor, first: int, length: Tensor) -> Tensor:
    rows, group = slice(first, first + int(length)), len(query) // keys.shape[1]
    k, v = (x[rows].double().repeat_interleave(group, dim=1) for x in (keys, values))
    scores = torch.einsum("nh,snh->ns", query.double(), k) / query.shape[1] ** 0.5
    return torch.einsum("ns,snh->nh", scores.softmax(-1), v)


@pytest.mark.parametrize("call", PUTS.values(), ids=PUTS)
def test_blocks_are_normalized_rotated_and_written_in_place(call: Call) -> None:
    arguments = tuple(x.clone() if isinstance(x, Tensor) else x for x in call[1])
    fused.norm_rotate_put(*arguments)  # type: ignore[arg-type]
    check_put(arguments, arguments[0].dtype)


@pytest.mark.parametrize("name", PUTS)
def test_the_kernel_normalizes_rotates_and_writes_in_place(name: str, interpreted: Results) -> None:
    _, arguments = interpreted[name]
    check_put(arguments, arguments[0].dtype)


@pytest.mark.parametrize("name", ATTENTIONS)
def test_a_token_attends_to_its_rows(name: str, interpreted: Results) -> None:
    found, arguments = interpreted[name]
    expected = attention_reference(*arguments)
    check(fused.decode_attention(*arguments), expected)
    check(found, expected)


def test_capacity_changes_no_bit(interpreted: Results) -> None:
    exact, *larger = [interpreted[spare][0] for spare in CAPACITIES]
    assert all(torch.equal(exact, one) for one in larger)


@pytest.mark.parametrize("name", SILUS)
def test_the_gate_opens_as_in_the_formula(name: str, interpreted: Results) -> None:
    found, (gate_up,) = interpreted[name]
    gate, up = gate_up.double().chunk(2, dim=-1)
    expected = gate * gate.sigmoid() * up
    check(found, expected)
    check(fused.silu_mul(gate_up), expected)


@pytest.mark.parametrize("name", INT8S)
def test_a_row_is_multiplied_with_integers_and_scales(name: str, interpreted: Results) -> None:
    found, (x, weight, scale, bias) = interpreted[name]
    expected = x.double() @ weight.double().t() * scale.double() + (0 if bias is None else bias.double())
    atol = 2**-5 if x.dtype is torch.bfloat16 else 2e-5
    check(found, expected, atol)
    check(fused.int8_row(x, weight, scale, bias), expected, atol)


class Ops(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the names of the operations of what runs in it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not str(func).startswith("prim."):
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def on_gpu(call: Call) -> Call:
    """The call with tensors without data, on a GPU that is not there."""
    mode = FakeTensorMode()
    kernel, arguments = call
    fakes = (FakeTensor(mode, x.to("meta"), torch.device("cuda:0")) if isinstance(x, Tensor) else x for x in arguments)
    return kernel, tuple(fakes)


def run(call: Call) -> tuple[Tensor | None, list[str]]:
    """The result of a fused step, and the operations that it took."""
    kernel, arguments = call
    with Ops() as ops:
        return getattr(fused, kernel)(*arguments), ops.names


@pytest.mark.parametrize("call", [silu_call(DTYPES[1]), put_call(TINY, DTYPES[1]), attention_call(TINY, DTYPES[1], 2)])
def test_a_gpu_sees_one_op(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused.KERNELS, "enabled", True)
    (expected, _), (found, names) = run(call), run(on_gpu(call))
    assert names == [f"autosequence.{call[0]}.default"]
    assert (found is None) is (expected is None)
    if found is not None and expected is not None:
        assert (found.shape, found.dtype, found.device.type) == (expected.shape, expected.dtype, "cuda")


def test_a_gpu_sees_the_operations_of_pytorch_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused.KERNELS, "enabled", False)
    _, names = run(on_gpu(silu_call(torch.bfloat16)))
    assert len(names) > 1
    assert all(name.startswith("aten.") for name in names)


@pytest.mark.parametrize(
    ("lacking", "said"),
    [("triton", "Triton is not installed"), ("gcc", "no C compiler"), ("ampere", "older than Ampere")],
)
def test_kernels_that_cannot_run_are_replaced(
    lacking: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5) if lacking == "ampere" else (9, 0))
    if lacking == "triton":
        monkeypatch.setitem(sys.modules, "triton", None)  # as if it could not be imported
    if lacking == "gcc":
        monkeypatch.setenv("PATH", "")
    kernels = fused.Kernels()
    with caplog.at_level(logging.WARNING):
        kernels.choose(torch.device("cuda"))
    assert not kernels.enabled
    assert said in caplog.text


def test_the_setting_turns_the_kernels_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    for wanted in (True, False):
        kernels = fused.Kernels(wanted=wanted)
        kernels.choose(torch.device("cuda"))
        assert kernels.enabled is wanted


@dataclass
class Launches:
    """Stands for a kernel and keeps how it is launched."""

    kernel: triton.JITFunction
    calls: list[tuple[tuple[object, ...], dict[str, object]]] = field(default_factory=list)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        assert all(side > 0 for side in grid)
        return lambda *args, **options: self.calls.append((args, options))

    def sources(self) -> Iterator[tuple[ASTSource, dict[str, object]]]:
        """What to compile for each launch, and its options."""
        names = self.kernel.arg_names
        for args, options in self.calls:
            bound = dict(zip(names, args, strict=False)) | {name: options[name] for name in options if name in names}
            types = {name: triton_type(bound[name], name) for name in names}
            constants = {name: bound[name] for name, kind in types.items() if kind == "constexpr"}
            # Triton compiles for aligned addresses and strides, as those of a model are.
            aligned = {
                (place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if types[name][0] in "*i"
            }
            others = {name: value for name, value in options.items() if name not in names}
            yield ASTSource(self.kernel, types, constants, aligned), others


def triton_type(value: object, name: str) -> str:
    if isinstance(value, Tensor):
        return {torch.bfloat16: "*bf16", torch.float32: "*fp32", torch.int64: "*i64", torch.int8: "*i8"}[value.dtype]
    if value is None or name.isupper():
        return "constexpr"
    return "fp32" if isinstance(value, float) else "i32"


@pytest.mark.parametrize(
    ("capability", "geometry", "dtype"),
    [
        (80, SEVEN_B, torch.bfloat16),
        (89, SEVEN_B, torch.bfloat16),
        (90, SEVEN_B, torch.bfloat16),
        (89, TINY, torch.float32),
    ],
)
def test_kernels_compile_for_a_card_and_fit_on_it(
    capability: int, geometry: Geometry, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    recorded = []
    for name in ("_int8_row", "_silu_mul", "_norm_rotate_put", "_attend_chunk", "_merge_chunks"):
        recorded.append(Launches(getattr(triton_kernels, name)))
        monkeypatch.setattr(triton_kernels, name, recorded[-1])
    calls = (
        silu_call(dtype),
        put_call(geometry, dtype),
        put_call(geometry, dtype, 1, row=True),
        int8_call(dtype, bias=True),
    )
    for kernel, arguments in (*calls, attention_call(geometry, dtype, 300)):
        getattr(triton_kernels, kernel)(*arguments)
    for launches in recorded:
        for source, options in launches.sources():
            compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
            registers, spilled = resources(compiled.asm["cubin"], tmp_path / "cubin")
            sys.stdout.write(
                f"sm_{capability} {source.fn.__name__}: {registers} registers, {spilled} bytes spilled, "
                f"{compiled.metadata.shared} bytes shared\n"
            )
            assert registers * 32 * compiled.metadata.num_warps <= REGISTERS
            assert spilled == 0
            assert compiled.metadata.shared <= SHARED_BYTES[capability]


def resources(cubin: bytes, path: Path) -> tuple[int, int]:
    """Registers of a thread, and the bytes that it spills."""
    path.write_bytes(cubin)
    command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    registers, stack, local = (int(re.findall(rf"\b{name}:(\d+)", text)[-1]) for name in ("REG", "STACK", "LOCAL"))
    return registers, stack + local
