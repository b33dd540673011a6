"""The TPU generations: what a chip computes, moves, holds and sends.

A core is what JAX calls a device. On v4 and v5p it is a whole chip, whose two
TensorCores work as one (megacore, as on Cloud TPU); v5e and v6e chips have one
TensorCore. So there is one core per chip everywhere.
"""

from dataclasses import dataclass

from xdc_jax.errors import UserError

GIB = 2**30
EXAMPLES = "v4:2x2x4, v5e:2x4, v5e:4x4, v5p:2x2x1, v6e:4x4"


@dataclass(frozen=True)
class Chip:
    """One generation; rates are peaks per chip.

    Attributes:
        flops_per_s: bfloat16 multiplications and additions per second.
        hbm_bytes_per_s: bytes per second to and from HBM.
        hbm_bytes: HBM that the compiler gives a program; less than the chip has,
            because the system keeps some.
        ici_bytes_per_s: what a chip can send over all its links to other chips; half
            of the documented bidirectional rate.
        source: where the rates are documented.
        topology_options: arguments that a topology of this generation needs.
    """

    flops_per_s: float
    hbm_bytes_per_s: float
    hbm_bytes: float
    ici_bytes_per_s: float
    source: str
    topology_options: tuple[tuple[str, str], ...] = ()


# hbm_bytes is what libtpu 0.0.52 names when a program does not fit.
CHIPS = {
    "v4": Chip(
        275e12,
        1200e9,
        30.75 * GIB,
        # 6 links of 50 GB/s: Jouppi et al. 2023 (arXiv:2304.01433), table 4.
        300e9,
        "cloud.google.com/tpu/docs/v4",
        # Without it the topology has two devices per chip.
        (("chip_config_name", "megacore"),),
    ),
    "v5e": Chip(197e12, 819e9, 15.75 * GIB, 200e9, "cloud.google.com/tpu/docs/v5e"),
    "v5p": Chip(459e12, 2765e9, 95.73 * GIB, 600e9, "cloud.google.com/tpu/docs/v5p"),
    "v6e": Chip(918e12, 1638e9, 31.24 * GIB, 400e9, "cloud.google.com/tpu/docs/v6e"),
}


def of_topology(topology: str) -> Chip:
    """Returns the chip of a topology such as v5e:4x4.

    Raises:
        UserError: the generation is not known.
    """
    generation = topology.partition(":")[0]
    if generation not in CHIPS:
        raise UserError(
            f"--topology: found {topology!r}, expected GENERATION:SHAPE with one of "
            f"{', '.join(CHIPS)}, such as {EXAMPLES}"
        )
    return CHIPS[generation]
