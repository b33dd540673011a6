"""The tables of `xdc plan`: one column per slice."""

from collections.abc import Sequence

from xdc_jax.planning.chips import GIB
from xdc_jax.planning.estimate import Estimate
from xdc_jax.planning.programs import DoesNotFit, Program
from xdc_jax.results import markdown

HBM_NEEDED = "HBM needed, GiB"
NOTES = """
A core is what JAX calls a device: here, a chip. Times are rooflines, the longest of
compute, memory and collectives at the documented peaks: bounds, not predictions. How
much slower a run is, only a run can tell; hours and price are at least these.

FLOP of the network: of its convolutions and products. As compiled: as the compiler
counts its program, with batch norm, and what it computes twice or spreads over margins.
Exact float32 products, as k-means needs them, take several passes of bfloat16.
HBM traffic: what each operation of the compiled text reads and writes there, in whole
tiles (without their padding; the compiler's `bytes accessed`, with prefetches counted
twice). Collectives: a ring of all cores over all links of a chip.
"""


def render(
    estimates: Sequence[Estimate],
    clips_per_host_core: float,
    prices: Sequence[float | None],
) -> str:
    """Returns the tables as Markdown.

    Args:
        estimates: of each slice.
        clips_per_host_core: clips per second that a core of a host prepares.
        prices: per chip and hour of each slice, None where not given.
    """
    columns = [
        _column(found, clips_per_host_core, price)
        for found, price in zip(estimates, prices, strict=True)
    ]
    parts = []
    for title in columns[0]:
        lines = [[title, *(found.tpu.name for found in estimates)]]
        rows = dict.fromkeys(row for column in columns for row in column[title])
        lines += [[r, *(column[title].get(r, "-") for column in columns)] for r in rows]
        parts.append(markdown(lines))
    return "\n\n".join(parts) + "\n" + NOTES


def _column(
    found: Estimate, clips_per_host_core: float, price: float | None
) -> dict[str, dict[str, str]]:
    """Returns title -> row -> cell of one slice."""
    rate, cores = found.clips_per_s, found.tpu.mesh.size
    chip = found.tpu.chip
    train = {
        "cores": f"{cores}",
        "clips per core": f"{found.clips_per_core}",
        **_program(found, found.train),
    }
    if found.headroom is not None:
        train["headroom beside waiting batches, GiB"] = _gib(found.headroom)
        train["clips/s per core"] = f"{rate / cores:,.0f}"
        train["clips/s in all"] = f"{rate:,.0f}"
        train["host cores to feed it"] = f"{rate / clips_per_host_core:,.0f}"
    if found.largest_batch is not None:
        train["most clips per core that fit"] = f"{found.largest_batch}"
    extract = _program(found, found.extract)
    if isinstance(found.extract, Program):
        clips = found.clips_per_core * cores
        extract["clips/s in all"] = f"{clips / found.extract.seconds(chip):,.0f}"
    columns = {"training step, per core": train, "extraction, per core": extract}
    for name, program in found.kmeans.items():
        columns[f"k-means update of {name}, per core"] = _program(found, program, True)
    share = found.feature_bytes / cores
    columns[f"{found.num_clips:,} clips"] = {
        "features of all encoders, GB": f"{found.feature_bytes / 1e9:.2f}",
        "their share on a core, MB": f"{share / 1e6:.1f}",
        "tables of labels on a core, MB": f"{found.label_bytes / 1e6:.2f}",
    }
    columns["schedule"] = _schedule(found, price)
    return columns


def _program(
    found: Estimate, program: Program | DoesNotFit, in_loop: bool = False
) -> dict[str, str]:
    """Returns the rows of a program, or of a turn of its loop."""
    chip = found.tpu.chip
    if isinstance(program, DoesNotFit):
        return {HBM_NEEDED: _does_not_fit(program)}
    roofs = program.roofs(chip)
    traffic = f"{program.hbm_bytes / 1e9:.3g} ({program.unpadded_bytes / 1e9:.3g}"
    if in_loop:
        flops = f"{program.flops / 1e9:.4g} x {program.flops_passes} passes"
        counted = {"GFLOP": flops, "HBM traffic, GB (unpadded)": f"{traffic})"}
    else:
        flops = f"{program.network_flops / 1e12:.4g} ({program.flops / 1e12:.4g})"
        traffic += f"; {program.reported_bytes / 1e9:.3g})"
        counted = {
            "TFLOP of the network (as compiled)": flops,
            "HBM traffic, GB (unpadded; reported)": traffic,
        }
    return {
        HBM_NEEDED: f"{_gib(program.hbm_needed)} of {_gib(chip.hbm_bytes)}",
        **counted,
        "collectives, MB": f"{program.collective_bytes / 1e6:.3g}",
        "compute / memory / collectives, ms": " / ".join(
            f"{1000 * seconds:.3g}" for seconds in roofs.values()
        ),
        "roofline, ms": f"{1000 * program.seconds(chip):.3g}",
        "bound by": max(roofs, key=roofs.get),
    }


def _does_not_fit(program: DoesNotFit) -> str:
    if program.hbm_needed is None:
        return "does not fit"
    needed, available = _gib(program.hbm_needed), _gib(program.hbm_available)
    return f"does not fit: needs {needed} of {available}"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.2f}"


def _schedule(found: Estimate, price: float | None) -> dict[str, str]:
    plan = found.schedule
    rows = {
        "training steps per epoch": f"{plan.steps_per_epoch:,}",
        "epochs": f"{plan.epochs}",
        "extractions of all clips": f"{plan.extractions}",
    }
    for name, updates in plan.kmeans_updates.items():
        rows[f"k-means updates of {name}, at most"] = f"{updates:,}"
    hours = found.hours()
    if hours is None:
        return {**rows, "hours in all": "-"}
    titles = {
        "epoch": "hours per epoch",
        "training": "hours of training",
        "extraction": "hours of extraction",
        "kmeans": "hours of k-means",
        "total": "hours in all",
    }
    rows |= {title: f"{hours[key]:.3g}" for key, title in titles.items()}
    rows["chip-hours in all"] = f"{found.chip_hours:.3g}"
    if price is not None:
        amount = f"{found.chip_hours * price:.2f}"
        rows["price"] = f"{amount} at {price:g} per chip-hour"
    return rows
