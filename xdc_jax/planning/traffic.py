"""Bytes that a compiled program moves: to and from HBM, and between chips.

The compiler's own figure, `bytes accessed`, counts what is prefetched to memory on the
chip twice, by the copy and by what reads the copy, and counts what never leaves the
chip. Here a buffer counts where it lies in HBM, with the padding of its tiles:

* an operation or fusion reads its operands and writes its result;
* where a fusion reads only slices of an operand, or writes one, the slices count;
* an asynchronous copy counts on its HBM side, once;
* bitcasts, tuples, parameters and constants move nothing;
* the body of a loop counts as often as the loop runs, where the text shows how often
  that is; else once.

So the figure is what the schedule of the compiler moves if every operand is read once.
A convolution that reads its input again for each group of output channels moves more.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from xdc_jax.planning.hlo import Computation, Module, Operation

_MOVE_NOTHING = {
    "after-all",
    "bitcast",
    "constant",
    "domain",
    "get-tuple-element",
    "iota",
    "opt-barrier",
    "parameter",
    "partition-id",
    "replica-id",
    "tuple",
}
# collective -> bytes that each of n chips in a ring sends per byte of its operand
_RING = {
    "all-reduce": lambda n: 2 * (n - 1) / n,
    "all-gather": lambda n: n - 1,
    "reduce-scatter": lambda n: (n - 1) / n,
    "all-to-all": lambda n: (n - 1) / n,
    "collective-permute": lambda n: 1,
}
_SLICES = {"dynamic-slice", "gather", "slice"}


@dataclass(frozen=True)
class Traffic:
    """What one core moves.

    Attributes:
        hbm_bytes: to and from HBM.
        collective_bytes: operands of the collectives.
        sent_bytes: what a core sends for them if they go around a ring of all cores.
    """

    hbm_bytes: float
    collective_bytes: float
    sent_bytes: float


def of_program(module: Module, num_cores: int) -> Traffic:
    """Returns the traffic of a run of the program."""
    return _of_computation(module, module.entry, num_cores)


def of_main_loop(module: Module, num_cores: int) -> Traffic:
    """Returns the traffic of one turn of the program's outermost loop.

    Raises:
        ValueError: the program has not exactly one such loop.
    """
    loops = [op for op in module.entry.values() if op.opcode == "while"]
    if len(loops) != 1:
        raise ValueError(f"expected one outermost loop, found {len(loops)}")
    body = module.computations[loops[0].called("body")]
    return _of_computation(module, body, num_cores)


def _of_computation(module: Module, start: Computation, num_cores: int) -> Traffic:
    hbm_bytes = collective_bytes = sent_bytes = 0.0
    for computation, op, times in _executed(module, start, 1):
        hbm_bytes += times * _hbm_bytes(module, computation, op)
        for kind, num_bytes in _collectives(module, computation, op):
            collective_bytes += times * num_bytes
            sent_bytes += times * num_bytes * _RING[kind](num_cores)
    return Traffic(hbm_bytes, collective_bytes, sent_bytes)


def _executed(
    module: Module, computation: Computation, times: int
) -> Iterator[tuple[Computation, Operation, int]]:
    """Yields every operation that is scheduled, and how often it runs."""
    for op in computation.values():
        if op.opcode == "while":
            turns = times * (trip_count(module, op) or 1)
            body = module.computations[op.called("body")]
            yield from _executed(module, body, turns)
        elif op.opcode in ("call", "async-start", "conditional"):
            for name in re.findall(r"%([^ ,)}]+)", op.attributes):
                if name in module.computations:
                    yield from _executed(module, module.computations[name], times)
        else:
            yield computation, op, times


def without_padding(module: Module) -> Module:
    """Returns the program as if no array in HBM were padded to whole tiles."""
    return Module(
        {name: _unpadded(each) for name, each in module.computations.items()},
        _unpadded(module.entry),
    )


def _unpadded(computation: Computation) -> Computation:
    def unpadded(op: Operation) -> Operation:
        shapes = tuple(replace(s, tiled_bytes=s.num_bytes) for s in op.shapes)
        return replace(op, shapes=shapes)

    return Computation({name: unpadded(op) for name, op in computation.items()})


def trip_count(module: Module, loop: Operation) -> int | None:
    """Returns how often a `while` runs, None where its text does not show it.

    XLA writes a loop over n things as one whose condition is `index < n`, from 0 on.
    """
    known = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.attributes)
    if known:
        return int(known[1])
    condition = module.computations[loop.called("condition")]
    root = condition.root
    if root.opcode != "compare" or "direction=LT" not in root.attributes:
        return None
    limit = condition[root.operands[1]]
    return int(limit.argument) if limit.opcode == "constant" else None


def _collectives(
    module: Module, computation: Computation, op: Operation
) -> Iterator[tuple[str, float]]:
    """Yields kind and operand bytes of a collective, also of those in a fusion."""
    kind = op.opcode.removesuffix("-start")
    if kind in _RING:
        operands = [computation[name] for name in op.operands]
        yield kind, sum(s.num_bytes for operand in operands for s in operand.shapes)
    elif op.opcode == "fusion":
        inner = module.computations[op.called("calls")]
        for inner_op in inner.values():
            yield from _collectives(module, inner, inner_op)


def _hbm_bytes(module: Module, computation: Computation, op: Operation) -> float:
    """Returns the bytes that one scheduled operation reads and writes."""
    if op.opcode in _MOVE_NOTHING or op.opcode.endswith("-done"):
        return 0.0
    operands = [computation[name] for name in op.operands]
    if op.opcode.endswith("-start"):
        return _started_bytes(op, operands)
    if op.opcode == "fusion":
        inner = module.computations[op.called("calls")]
        read = sum(
            _read_bytes(module, inner, i, operand) for i, operand in enumerate(operands)
        )
        return read + _written_bytes(inner, op)
    if op.opcode in _SLICES:
        source, *indices = operands
        return (
            _part(source, op) + sum(index.hbm_bytes for index in indices) + op.hbm_bytes
        )
    if op.opcode == "dynamic-update-slice":
        target, update, *_ = operands
        return update.hbm_bytes + _part(target, update)
    return sum(operand.hbm_bytes for operand in operands) + op.hbm_bytes


def _started_bytes(op: Operation, operands: list[Operation]) -> float:
    """Returns the bytes of an asynchronous operation.

    The result of a copy or slice is what is written and what is read, in either order,
    and a semaphore; a slice reads as much as it writes. Collectives write as much.
    """
    if op.opcode.removesuffix("-start") in _RING:
        return 2 * sum(operand.hbm_bytes for operand in operands)
    written_and_read = op.shapes[:2]
    moved = min(shape.tiled_bytes for shape in written_and_read)
    return moved * sum(shape.in_hbm for shape in written_and_read)


def _part(whole: Operation, part: Operation) -> float:
    """Returns the bytes of HBM that accessing only `part` of an array takes."""
    if not any(shape.in_hbm for shape in whole.shapes):
        return 0.0
    size = sum(shape.tiled_bytes for shape in part.shapes)
    return min(size, whole.hbm_bytes)


def _read_bytes(
    module: Module, inner: Computation, number: int, operand: Operation
) -> float:
    """Returns the bytes that a fusion reads of its operand of that number."""
    if not operand.hbm_bytes:
        return 0.0
    parts = _parts_read(module, inner, inner.parameters[number])
    return operand.hbm_bytes if parts is None else min(parts, operand.hbm_bytes)


def _parts_read(module: Module, inner: Computation, array: Operation) -> float | None:
    """Returns the bytes of the slices that are all that is read; None if there is more.

    An array into which only a slice is written, in place, is not read.
    """
    total = 0.0
    for user in inner.users.get(array.name, ()):
        is_source = user.operands[0] == array.name
        if user.opcode in _SLICES and is_source:
            total += sum(shape.tiled_bytes for shape in user.shapes)
            continue
        if user.opcode == "dynamic-update-slice" and is_source:
            continue
        part = None
        if user.opcode == "bitcast":
            part = _parts_read(module, inner, user)
        elif user.opcode == "fusion":
            nested = module.computations[user.called("calls")]
            part = _parts_read(
                module, nested, nested.parameters[user.operands.index(array.name)]
            )
        if part is None:
            return None
        total += part
    return total


def _written_bytes(inner: Computation, op: Operation) -> float:
    """Returns the bytes that a fusion writes."""
    root = inner.root
    results = (
        [inner[name] for name in root.operands] if root.opcode == "tuple" else [root]
    )
    if len(results) != len(op.shapes):
        return op.hbm_bytes
    total = 0.0
    for result, shape in zip(results, op.shapes, strict=True):
        while result.opcode == "bitcast":
            result = inner[result.operands[0]]
        if result.opcode == "dynamic-update-slice" and shape.in_hbm:
            update = inner[result.operands[1]]
            total += sum(part.tiled_bytes for part in update.shapes)
        else:
            total += shape.hbm_bytes
    return total
