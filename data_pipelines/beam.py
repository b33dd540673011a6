"""The parts of a preparation, made by an Apache Beam runner (extra `beam`).

The work is that of `parts.write`, one part at a time: the file of a part is the same.
On a cluster, sources and prepared directory are URLs such as gs://..., and the workers
have this package: `--runner_options=requirements_file=...` or a container with it.
"""

import logging
from collections.abc import Sequence

from etils import epath

from data_pipelines import media, parts
from xdc_jax.errors import UserError

RUNNERS = ("DirectRunner", "DataflowRunner", "FlinkRunner", "SparkRunner")

log = logging.getLogger(__name__)


def write(
    todo: Sequence[parts.Part],
    out_dir: epath.Path,
    settings: media.Settings,
    time_limit_s: float,
    runner: str,
    options: Sequence[str],
) -> None:
    """Makes parts, as many at a time as the runner does.

    Args:
      todo: which.
      out_dir: the prepared directory; every worker must reach it under this name.
      settings: how media is stored.
      time_limit_s: a file that gives no clip for so long is given up.
      runner: one of `RUNNERS`.
      options: pipeline options, `name=value`.

    Raises:
      UserError: Apache Beam is not installed.
    """
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise UserError(
            f"--runner={runner} needs Apache Beam ({error}); install it with "
            "pip install 'xdc-jax[beam]'."
        ) from error
    flags = [f"--runner={runner}", *(f"--{option}" for option in options)]
    with apache_beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
        _ = (
            pipeline
            | apache_beam.Create(todo)
            | apache_beam.Reshuffle()
            | apache_beam.Map(_write_one, str(out_dir), settings, time_limit_s)
        )


def _write_one(
    part: parts.Part, out_dir: str, settings: media.Settings, time_limit_s: float
) -> None:
    """What a runner's worker does; a retry leaves a finished part as it is."""
    folder = epath.Path(out_dir)
    if not part.is_done(folder):
        parts.write([part], folder, settings, 1, time_limit_s)
        log.info("%s part %d is done", part.split, part.index)
