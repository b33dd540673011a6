r"""Says what a pretraining run needs on TPU slices, without having one.

Examples:
  xdc plan --config=configs/xdc_kinetics.py --topology=v5e:4x4 --num_clips=230000
  xdc plan --config=configs/xdc_kinetics.py:batch_size=512 --num_clips=230000 \
      --topology=v4:2x2x4,v5e:4x4,v6e:4x4 --price_per_chip_hour=v5e=1.2,v6e=2.7 \
      --search_batch --out=plan.json

Needs Google's TPU compiler, `pip install libtpu` (Linux), and minutes per slice.

Compiles the training step, the extraction and the k-means of the config for each slice
and prints, side by side: memory per core, FLOPs, HBM traffic, collectives, the time
that the peaks of the chip allow and which of them binds, clips per second, host cores
to feed them, hours and price of the whole schedule. A program that does not fit is an
answer. Times are bounds, not predictions.

A topology is GENERATION:SHAPE, in chips: v4, v5p (three axes), v5e, v6e (two).
"""

import json
import logging
import math

from absl import flags
from ml_collections import config_flags

from xdc_jax import config as config_lib
from xdc_jax.errors import UserError
from xdc_jax.files import absolute, write_atomically

log = logging.getLogger(__name__)


def define_flags() -> None:
    """Defines the flags of this verb."""
    config_flags.DEFINE_config_file(
        "config", None, "File with get_config(arg), as FILE.py or FILE.py:key=value,..."
    )
    flags.DEFINE_list("topology", None, "Slices, such as v5e:4x4,v4:2x2x4.")
    flags.DEFINE_integer("num_clips", None, "Clips of the data set.", lower_bound=1)
    flags.DEFINE_bool(
        "search_batch", False, "Also find the most clips per core that fit: compiles."
    )
    flags.DEFINE_float(
        "clips_per_host_core",
        450.0,
        "Clips per second that a core of a host prepares; as benchmarks/"
        "input_pipeline.py measured on one core: 450 with 8 clips per record, 419 with "
        "4, 216 with 1.",
        lower_bound=1e-3,
    )
    flags.DEFINE_list(
        "price_per_chip_hour", [], "A number, or one per generation: v5e=1.2,v4=3.2."
    )
    flags.DEFINE_string("out", None, "JSON file for all figures.")
    flags.mark_flags_as_required(["config", "topology", "num_clips"])


def main() -> None:
    """Runs the verb."""
    from xdc_jax.planning import chips, estimate, programs, tables

    args = flags.FLAGS
    config_lib.check(args.config)
    for topology in args.topology:
        chips.of_topology(topology)
    prices = [price(args.price_per_chip_hour, name) for name in args.topology]
    programs.prepare_environment()
    slices = [programs.open_slice(topology) for topology in args.topology]
    for tpu in slices:
        estimate.check_batch_size(args.config, tpu)
    found = [
        estimate.of_slice(tpu, args.config, args.num_clips, args.search_batch)
        for tpu in slices
    ]
    print(tables.render(found, args.clips_per_host_core, prices), end="")
    if args.out:
        rows = [each.as_dict() for each in found]
        for row, rate in zip(rows, prices, strict=True):
            row["price_per_chip_hour"] = rate
            row["price"] = rate and row["hours"] and rate * row["chip_hours"]
            row["clips_per_host_core"] = args.clips_per_host_core
        text = json.dumps({"slices": rows}, indent=2) + "\n"
        write_atomically(absolute(args.out), text.encode())
        log.info("wrote %s", args.out)


def price(given: list[str], topology: str) -> float | None:
    """Returns the price per chip and hour for a topology, None where none is given.

    Raises:
        UserError: it is no number, or of an unknown generation.
    """
    from xdc_jax.planning.chips import CHIPS

    found = {}
    for item in given:
        generation, equals, number = item.rpartition("=")
        try:
            found[generation] = float(number)
        except ValueError:
            number = None
        if (
            number is None
            or not 0 <= found[generation] < math.inf
            or (equals and generation not in CHIPS)
        ):
            raise UserError(
                f"--price_per_chip_hour: found {item!r}, expected a number, or "
                f"GENERATION=NUMBER with one of {', '.join(CHIPS)}"
            )
    return found.get(topology.partition(":")[0], found.get(""))
