"""The workdir of a run belongs to one config and one data set."""

import importlib.metadata
import json
import logging
from collections.abc import Mapping

from etils import epath
from ml_collections import ConfigDict

from xdc_jax import config as config_lib
from xdc_jax import hosts
from xdc_jax.errors import UserError
from xdc_jax.files import reaching, write_atomically

log = logging.getLogger(__name__)


def claim(
    workdir: epath.Path, config: ConfigDict, made_from: Mapping[str, str]
) -> None:
    """Writes config.json into a new workdir; checks that of one that is gone on with.

    The first process of a job does so, and all have to see it then.

    Args:
        workdir: folder of the run, local or in a bucket; made if missing.
        config: of the run.
        made_from: `data`, `weights` -> what tells them from others.

    Raises:
        UserError: the workdir belongs to a run of another config, or made from others;
            its bucket cannot be used; or this process does not see what the first does.
    """
    with reaching(workdir):
        hosts.on_first(lambda: _claim(workdir, config, made_from))
        hosts.check_shared(workdir / "config.json", "workdir")


def _claim(
    workdir: epath.Path, config: ConfigDict, made_from: Mapping[str, str]
) -> None:
    record = {
        "config": json.loads(config.to_json()),
        **made_from,
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
        },
    }
    file = workdir / "config.json"
    if not file.exists():
        write_atomically(file, json.dumps(record, indent=2).encode())
        return
    try:
        before = json.loads(file.read_text())
        for kind, now in made_from.items():
            if before[kind] != now:
                raise UserError(
                    f"{file}: this workdir belongs to a run on other {kind} (before: "
                    f"{before[kind]}, now: {now}); use a new workdir"
                )
        old = config_lib.flatten(ConfigDict(before["config"]))
        versions = before["versions"]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: not a config that xdc wrote ({error!r})") from error
    new = config_lib.flatten(ConfigDict(record["config"]))
    differing = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if differing:
        lines = [f"  {key}: {old.get(key)} -> {new.get(key)}" for key in differing]
        raise UserError(
            f"{file}: this workdir belongs to another config; use a new workdir, or "
            "change back:\n" + "\n".join(lines)
        )
    if versions != record["versions"]:
        log.warning("package versions changed: %s -> %s", versions, record["versions"])
