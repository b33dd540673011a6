"""FLOPs that a function asks for, counted from its convolutions and products.

A multiplication and an addition are two. Multiplications by padding, and by the zeros
between the rows of a strided convolution's gradient, do not count: no result needs
them. Sums, batch norm and the like are left out: 1 to 2 % of a training step here.

The compiler counts what it makes of the function, which may be more: it computes some
things twice, and spreads small batches of pictures over space, with margins.
"""

import math
from collections.abc import Iterator
from typing import Any

from jax.extend import core


def flops(jaxpr: core.ClosedJaxpr | core.Jaxpr) -> int:
    """Returns the FLOPs of a traced function.

    A mapped function counts for one core. The body of a loop counts as often as it
    runs, of a `while` once. Of branches the largest counts.
    """
    total = 0
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        name, params = equation.primitive.name, equation.params
        if name == "conv_general_dilated":
            total += _convolution(equation)
        elif name == "dot_general":
            total += _product(equation)
        elif name == "cond":
            total += max(flops(branch) for branch in params["branches"])
        else:
            times = params["length"] if name == "scan" else 1
            total += times * sum(flops(inner) for inner in _inner(params))
    return total


def _inner(params: dict[str, Any]) -> Iterator[core.ClosedJaxpr | core.Jaxpr]:
    """Yields the functions that an operation calls."""
    for value in params.values():
        if isinstance(value, core.ClosedJaxpr | core.Jaxpr):
            yield value


def _product(equation: core.JaxprEqn) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(shape[i] for i in contracted)


def _convolution(equation: core.JaxprEqn) -> int:
    params = equation.params
    numbers = params["dimension_numbers"]
    x, kernel = (variable.aval.shape for variable in equation.invars)
    out = equation.outvars[0].aval.shape
    products = out[numbers.out_spec[0]] * out[numbers.out_spec[1]]
    products *= kernel[numbers.rhs_spec[1]]  # channels that one output reads
    for axis, (stride, (low, _), x_step, kernel_step) in enumerate(
        zip(
            params["window_strides"],
            params["padding"],
            params["lhs_dilation"],
            params["rhs_dilation"],
            strict=True,
        )
    ):
        size = x[numbers.lhs_spec[2 + axis]]
        positions = (
            i * stride + j * kernel_step - low
            for i in range(out[numbers.out_spec[2 + axis]])
            for j in range(kernel[numbers.rhs_spec[2 + axis]])
        )
        products *= sum(
            0 <= at <= (size - 1) * x_step and at % x_step == 0 for at in positions
        )
    return 2 * products
