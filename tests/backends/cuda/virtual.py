"""A driver that is none: what gpu.py asks of cuda.core and its bindings, on memory of the host, so that its own code runs
where no GPU is.  Kernels run in numba.cuda's simulator, from the numbers alone that they are given.

Work is done late: a stream does what it was asked for when the host, or another stream, waits for it, or by chance while
one of them does.  What is not ordered by events, or read before it is there, is found by that.  Memory begins with other
numbers than zeros, and is gone when it was given back.  Streams do not wait for the legacy one by themselves, as those of
most libraries do not.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import random
import re
import struct
from collections import deque
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from npflows.backends.cuda import simulator
from npflows.backends.cuda.compiler import LOWEST, Kernel

SIZES = {"s64": 8, "f64": 8, "f32": 4, "u8": 1}
"""Bytes of parameters of kernels."""
PARAMETERS = {"int64": "s64", "float64": "f64", "float32": "f32", "bool": "u8"}


TEXTS: dict[str, tuple[Kernel, tuple[str, ...]]] = {}
"""Kernels and the kinds of their arguments, by what they are called in machine code, also in that of a process before."""


class Memory:
    """The GPU's memory: allocations by their addresses, which are none of the host's."""

    def __init__(self) -> None:
        self.pieces: dict[int, np.ndarray] = {}
        self.ready: set[int] = set()
        self.next, self.used, self.limit = 1 << 40, 0, 1 << 30

    def take(self, size: int) -> int:
        if self.used + size > self.limit:
            raise RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: The API call failed because it was unable to allocate memory")
        self.used += size
        address, self.next = self.next, self.next + -(-size // 512) * 512 + 512
        self.pieces[address] = np.full(size, 0xA5, np.uint8)
        return address

    def free(self, address: int) -> None:
        del self.pieces[address]

    def at(self, pointer: int, size: int) -> tuple[np.ndarray, int]:
        """The piece that holds so many bytes, and where they begin in it."""
        for address, piece in self.pieces.items():
            if address in self.ready and address <= pointer and pointer + size <= address + piece.size:
                return piece, pointer - address
        raise RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS")


class Buffer:
    """See cuda.core.Buffer."""

    def __init__(self, gpu: VirtualGpu, size: int, stream: Stream) -> None:
        self.gpu, self.size, self.handle = gpu, size, gpu.memory.take(size)
        stream.ask(lambda: gpu.memory.ready.add(self.handle))

    def close(self, stream: Stream | None = None) -> None:
        assert stream is not None
        self.gpu.memory.used -= self.size  # what comes next on this stream may have it
        stream.ask(lambda: self.gpu.memory.free(self.handle))


class Wait(NamedTuple):
    """A stream's waiting until another has done so much."""

    stream: Stream
    count: int

    def ready(self) -> bool:
        return self.stream.done >= self.count

    def __call__(self) -> None:
        self.stream.run(self.count)


class Stream:
    """See cuda.core.Stream."""

    def __init__(self, gpu: VirtualGpu, number: int) -> None:
        self.gpu, self.handle = gpu, number
        self.asked: deque[Any] = deque()
        self.done = self.count = 0
        self.busy, self.recorded = False, None

    def ask(self, work: Any) -> None:
        self.asked.append(work)
        self.count += 1

    def run(self, count: int) -> None:
        """Do what was asked for until so much is done; meanwhile other streams may do some of theirs."""
        while self.done < count:
            self.step()
            others = [one for one in self.gpu.streams.values() if one.may_go_on()]
            if others and self.gpu.chance.random() < 0.5:
                self.gpu.chance.choice(others).step()

    def may_go_on(self) -> bool:
        """Whether there is something to do that waits for no other stream."""
        return bool(self.asked) and not self.busy and getattr(self.asked[0], "ready", lambda: True)()

    def step(self) -> None:
        """Do the next of it."""
        assert not self.busy
        self.busy = True
        try:
            self.asked.popleft()()
        finally:
            self.busy = False
        self.done += 1

    def sync(self) -> None:
        self.gpu.refuse_to_record("cuStreamSynchronize")
        self.run(self.count)

    def record(self, event: None = None, options: None = None) -> Any:
        return SimpleNamespace(stream=self, count=self.count)

    def wait(self, event_or_stream: Any) -> None:
        one = event_or_stream.record() if isinstance(event_or_stream, Stream) else event_or_stream
        self.ask(Wait(one.stream, one.count))

    def create_graph_builder(self) -> GraphBuilder:
        return GraphBuilder(self)


class GraphBuilder:
    """See cuda.core.GraphBuilder."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def begin_building(self, mode: str) -> None:
        assert mode == "relaxed"
        self.stream.recorded = self.stream.gpu.recording = []

    def end_building(self) -> GraphBuilder:
        self.launches, self.stream.recorded, self.stream.gpu.recording = self.stream.recorded, None, None
        return self

    def complete(self) -> Any:
        launches = list(self.launches)
        self.stream.gpu.noted.append(f"a graph of {len(launches)}")

        def launch(stream: Stream) -> None:
            for one in launches:
                stream.ask(one)

        return SimpleNamespace(launch=launch)


class VirtualGpu:
    """A GPU with `core` and `driver`, which stand for ``cuda.core`` and ``cuda.bindings.driver``.

    Attributes
    ----------
    noted : list of str
        Kernels that were compiled or loaded, and graphs.
    """

    def __init__(self, capability: tuple[int, int] = (9, 0)) -> None:
        self.memory, self.capability, self.noted = Memory(), capability, []
        self.recording: list[Any] | None = None
        self.streams: dict[int, Stream] = {}
        self.chance = random.Random(0)
        self._numbers = itertools.count(1000)
        self.allowed: dict[str, int] = {}
        device = SimpleNamespace(
            device_id=0, compute_capability=capability, set_current=lambda: None, sync=self.finish, allocate=self.allocate,
            create_stream=lambda: self.stream(next(self._numbers)),
        )  # fmt: skip
        self.core = SimpleNamespace(
            Device=lambda device_id=None: device,
            Stream=SimpleNamespace(from_handle=self.stream),
            LEGACY_DEFAULT_STREAM=self.stream(1),
            PER_THREAD_DEFAULT_STREAM=self.stream(2),
            LaunchConfig=lambda grid, block, shmem_size: SimpleNamespace(grid=grid, block=block, shmem_size=shmem_size),
            LinkerOptions=lambda arch: arch,
            Linker=self.linker,
            ObjectCode=SimpleNamespace(from_ptx=self.as_ptx, from_cubin=self.loaded),
            launch=self.launch,
        )
        self.driver = SimpleNamespace(
            cuMemcpyHtoDAsync=self.to_device, cuMemcpyDtoHAsync=self.to_host, cuMemcpyDtoDAsync=self.within,
            cuMemGetInfo=lambda: (0, self.memory.limit, self.memory.limit), cuKernelSetAttribute=self.allow,
            CUfunction_attribute=SimpleNamespace(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES="shared"),
        )  # fmt: skip

        self.utils = SimpleNamespace(StridedMemoryView=SimpleNamespace(from_any_interface=self.viewed))

    def import_module(self, name: str) -> Any:
        """What gpu.py, recording.py and arrays.py import."""
        return {"cuda.core": self.core, "cuda.core.utils": self.utils}[name]

    def viewed(self, values: Any, stream_ptr: int) -> Any:
        """See cuda.core.utils.StridedMemoryView."""
        found = values.__cuda_array_interface__
        dtype = np.dtype(found["typestr"])
        strides = found["strides"] and tuple(step // dtype.itemsize for step in found["strides"])
        if found.get("stream"):
            self.stream(stream_ptr).wait(self.stream(found["stream"]))
        return SimpleNamespace(ptr=found["data"][0], shape=found["shape"], strides=strides, dtype=dtype, device_id=0,
                               is_device_accessible=True)  # fmt: skip

    def stream(self, handle: int) -> Stream:
        return self.streams.setdefault(handle, Stream(self, handle))

    def finish(self) -> None:
        self.refuse_to_record("cuCtxSynchronize")
        for stream in list(self.streams.values()):
            stream.sync()

    def refuse_to_record(self, name: str) -> None:
        if self.recording is not None:
            raise RuntimeError(f"{name}: CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED")

    def allocate(self, size: int, *, stream: Stream) -> Buffer:
        assert stream.handle == 1
        self.refuse_to_record("cuMemAllocAsync")
        return Buffer(self, size, stream)

    # copies

    def to_device(self, target: int, source: int, size: int, stream: int) -> tuple[int]:
        self.refuse_to_record("cuMemcpyHtoDAsync")
        early = ctypes.string_at(source, size) if size <= 1 << 16 else None  # as drivers do

        def run() -> None:
            piece, first = self.memory.at(target, size)
            piece[first : first + size] = np.frombuffer(early or ctypes.string_at(source, size), np.uint8)

        self.stream(stream).ask(run)
        return (0,)

    def to_host(self, target: int, source: int, size: int, stream: int) -> tuple[int]:
        self.refuse_to_record("cuMemcpyDtoHAsync")

        def run() -> None:
            piece, first = self.memory.at(source, size)
            ctypes.memmove(target, piece[first:].ctypes.data, size)

        self.stream(stream).ask(run)
        return (0,)

    def within(self, target: int, source: int, size: int, stream: int) -> tuple[int]:
        self.refuse_to_record("cuMemcpyDtoDAsync")

        def run() -> None:
            (piece, first), (other, start) = self.memory.at(target, size), self.memory.at(source, size)
            piece[first : first + size] = other[start : start + size].copy()

        self.stream(stream).ask(run)
        return (0,)

    # kernels

    def ptx_of(self, kernel: Kernel, kinds: tuple[str, ...]) -> str:
        """In place of the compiler's: the parameters that numba.cuda's kernels have."""
        types: list[str] = []
        for kind in kinds:
            name, _, shape = kind.partition(" ")
            types += ["s64"] * (5 + 2 * int(shape[:-1])) if shape else [PARAMETERS[name]]
        entry = f"entry_{len(TEXTS)}"
        TEXTS[entry] = Kernel(kernel.py_func, kernel.title, kernel.capability), kinds
        self.noted.append(f"compiled {kernel.title}")
        return f".visible .entry {entry}({', '.join(f'.param .{one} p{i}' for i, one in enumerate(types))})"

    @staticmethod
    def lowest_capability() -> tuple[int, int]:
        """In place of the compiler's."""
        return LOWEST

    def linker(self, module: Any, *, options: str) -> Any:
        code = json.dumps({"arch": options, "ptx": module.ptx}).encode()
        return SimpleNamespace(link=lambda kind: SimpleNamespace(code=code))

    def as_ptx(self, module: bytes) -> Any:
        """A driver compiles PTX itself."""
        code = json.dumps({"arch": "sm_{}{}".format(*self.capability), "ptx": module.decode()}).encode()
        return SimpleNamespace(ptx=module.decode(), get_kernel=lambda name: self.loaded(code).get_kernel(name))

    def loaded(self, module: bytes) -> Any:
        found = json.loads(module)
        if found["arch"] != "sm_{}{}".format(*self.capability):
            raise RuntimeError("CUDA_ERROR_NO_BINARY_FOR_GPU")
        parameters = re.findall(r"\.param \.(\w+)", found["ptx"])

        def get_kernel(name: str) -> Any:
            assert f".entry {name}(" in found["ptx"]
            self.noted.append(f"loaded {TEXTS[name][0].title}")
            return SimpleNamespace(handle=name, parameters=parameters)

        return SimpleNamespace(get_kernel=get_kernel)

    def allow(self, attribute: str, value: int, kernel: str, device: int) -> tuple[int]:
        assert (attribute, device) == ("shared", 0)
        self.allowed[kernel] = value
        return (0,)

    def launch(self, stream: Stream, config: Any, kernel: Any, *values: Any) -> None:
        if config.shmem_size > self.allowed.get(kernel.handle, 48 << 10):
            raise RuntimeError("CUDA_ERROR_INVALID_VALUE")
        packed = [packed_as_cuda_core_does(value) for value in values]
        sizes = [SIZES[one] for one in kernel.parameters]
        if [len(one) for one in packed] != sizes:
            raise RuntimeError(f"a kernel with parameters of {sizes} bytes was given {[len(one) for one in packed]}")
        text, kinds = TEXTS[kernel.handle]

        def run() -> None:
            rest = iter(packed)
            arguments = tuple(self.argument(kind, rest) for kind in kinds)
            simulator.launch(text, config.grid, config.block, 0, config.shmem_size, arguments)

        if stream.recorded is None:
            stream.ask(run)
        else:
            stream.recorded.append(run)

    def argument(self, kind: str, packed: Any) -> Any:
        """What a kernel finds in its parameters for an argument."""
        name, _, shape = kind.partition(" ")
        dtype = np.dtype(name)
        if not shape:
            return np.frombuffer(next(packed), dtype)[0].item() if name != "float32" else np.float32(read("f", packed))
        n_axes, layout = int(shape[:-1]), shape[-1]
        meminfo, parent, size, itemsize, pointer = (read("q", packed) for _ in range(5))
        extents, strides = ([read("q", packed) for _ in range(n_axes)] for _ in range(2))
        assert (meminfo, parent, itemsize, size) == (0, 0, dtype.itemsize, np.prod(extents, dtype=int))
        if layout == "C":
            strides[-1] = itemsize  # which is compiled into it
        elif layout == "F":
            strides[0] = itemsize
        kind_of_array = type(simulator.cuda.device_array(1, dtype))
        if not size:
            return kind_of_array(np.empty(extents, dtype))
        reach = [(extent - 1) * step for extent, step in zip(extents, strides)]
        before, after = -sum(step for step in reach if step < 0), sum(step for step in reach if step > 0)
        piece, first = self.memory.at(pointer - before, before + after + itemsize)
        return kind_of_array(np.ndarray(tuple(extents), dtype, piece, first + before, tuple(strides)))


def read(letter: str, packed: Any) -> Any:
    """The next of the numbers that a kernel is given."""
    return struct.unpack(f"<{letter}", next(packed))[0]


def packed_as_cuda_core_does(value: Any) -> bytes:
    """The bytes of a number that is given to a kernel: ints are addresses to it, and floats double."""
    if isinstance(value, (int, np.int64)):
        return struct.pack("<q", value)
    if isinstance(value, float):
        return struct.pack("<d", value)
    if isinstance(value, np.float32):
        return struct.pack("<f", value)
    if isinstance(value, np.bool_):
        return struct.pack("<?", value)
    raise TypeError(f"the argument is of unsupported type: {type(value)}")
