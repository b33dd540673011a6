"""Compiled HLO text as a TPU compiler writes it: operations, operands, shapes.

    %copy.1 = bf16[2,112,64]{2,1,0:T(8,128)(2,1)S(1)} copy(%fusion.4), metadata={...}

The braces hold the layout: dimensions from the fastest on, the tile, to multiples of
which the fastest dimensions are padded, and the memory: none is HBM, S(1) memory on the
chip, the others semaphores, scalars or the host. Format: openxla.org/xla/shapes and
openxla.org/xla/tiled_layout.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

_BITS = {"pred": 8, "token": 0, "opaque": 0, "bf16": 16, "c64": 64, "c128": 128}
_SHAPE = re.compile(r"([a-z][a-z0-9]*)\[([\d,<=]*)\](?:\{([^}]*)\})?")
_TILE = re.compile(r":T\(([\d,]+)\)")
_MEMORY = re.compile(r"S\((\d+)\)")
_COMMENT = re.compile(r"/\*.*?\*/")
_OPERATION = re.compile(r"\s*(ROOT )?%([^ ]+) = ")
_COMPUTATION = re.compile(r"(ENTRY )?%([^ ]+) \(.*\{$")


@dataclass(frozen=True)
class Shape:
    """An array.

    Attributes:
        num_bytes: of its elements.
        tiled_bytes: of the memory it takes, with the padding of its tiles.
        in_hbm: whether it lies in HBM.
    """

    num_bytes: float
    tiled_bytes: float
    in_hbm: bool

    @property
    def hbm_bytes(self) -> float:
        """Bytes of HBM it takes; 0 for what lies elsewhere."""
        return self.tiled_bytes if self.in_hbm else 0.0


@dataclass(frozen=True)
class Operation:
    """One line of a computation; `shapes` are the arrays of its result."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str
    argument: str
    is_root: bool

    def called(self, key: str) -> str | None:
        """Returns the computation that an attribute such as `calls` or `body` names."""
        found = re.search(rf"\b{key}=%([^ ,)}}]+)", self.attributes)
        return found and found[1]

    @property
    def hbm_bytes(self) -> float:
        """Bytes of HBM that its result takes."""
        return sum(shape.hbm_bytes for shape in self.shapes)


class Computation(dict[str, Operation]):
    """Operations by name, in their order."""

    @cached_property
    def root(self) -> Operation:
        """The operation whose result is that of the computation."""
        return next(op for op in self.values() if op.is_root)

    @cached_property
    def parameters(self) -> dict[int, Operation]:
        """Its parameters by number."""
        return {
            int(op.argument): op for op in self.values() if op.opcode == "parameter"
        }

    @cached_property
    def users(self) -> dict[str, list[Operation]]:
        """For each name the operations that read it."""
        found: dict[str, list[Operation]] = {}
        for op in self.values():
            for operand in dict.fromkeys(op.operands):
                found.setdefault(operand, []).append(op)
        return found


@dataclass(frozen=True)
class Module:
    """A compiled program: computations by name, and the one that runs."""

    computations: dict[str, Computation]
    entry: Computation


def parse(text: str) -> Module:
    """Reads the text of a compiled program.

    Raises:
        ValueError: it is no such text.
    """
    computations: dict[str, Computation] = {}
    entry = current = None
    for line in text.splitlines():
        if (head := _COMPUTATION.match(line)) and not _OPERATION.match(line):
            current = computations[head[2]] = Computation()
            if head[1]:
                entry = current
        elif current is not None and (start := _OPERATION.match(line)):
            op = _operation(start[2], bool(start[1]), line[start.end() :])
            current[op.name] = op
    if entry is None:
        raise ValueError("no ENTRY computation in the text of the compiled program")
    return Module(computations, entry)


def _operation(name: str, is_root: bool, text: str) -> Operation:
    """Reads `TYPE opcode(operands), attributes`."""
    size = _balanced(text) if text.startswith("(") else text.index(" ")
    rest = text[size:].lstrip()
    opcode, _, _ = rest.partition("(")
    inside = rest[len(opcode) :]
    end = _balanced(inside)
    argument = inside[1 : end - 1]
    return Operation(
        name,
        opcode,
        tuple(shapes(text[:size])),
        tuple(re.findall(r"%([^ ,)]+)", argument)),
        inside[end:],
        argument,
        is_root,
    )


def _balanced(text: str) -> int:
    """Returns the length of the parenthesis that `text` begins with."""
    depth = 0
    for i, char in enumerate(text):
        depth += (char == "(") - (char == ")")
        if not depth:
            return i + 1
    raise ValueError(f"unbalanced parentheses in {text[:80]!r}")


def shapes(text: str) -> Iterator[Shape]:
    """Yields the arrays of a type, those of a tuple one by one."""
    for dtype, sizes, layout in _SHAPE.findall(_COMMENT.sub("", text)):
        dims = [int(size.lstrip("<=")) for size in sizes.split(",") if size]
        bits = _BITS[dtype] if dtype in _BITS else int(re.search(r"\d+", dtype)[0])
        memory = _MEMORY.search(layout)
        padded = _padded(dims, layout)
        yield Shape(
            math.prod(dims) * bits / 8,
            math.prod(padded) * bits / 8,
            memory is None or memory[1] == "0",
        )


def _padded(dims: list[int], layout: str) -> list[int]:
    """Returns the dimensions, the fastest first, padded to whole tiles."""
    order = layout.partition(":")[0]
    fastest_first = [dims[int(i)] for i in order.split(",")] if order else dims[::-1]
    tile = _TILE.search(layout)
    if not tile:
        return fastest_first
    tile_sizes = [int(size) for size in reversed(tile[1].split(","))]
    missing = max(len(tile_sizes) - len(fastest_first), 0)
    fastest_first = fastest_first + [1] * missing
    return [
        -(-size // tile_sizes[i]) * tile_sizes[i] if i < len(tile_sizes) else size
        for i, size in enumerate(fastest_first)
    ]
