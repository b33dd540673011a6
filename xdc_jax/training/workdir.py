"""The workdir of a run belongs to one config and one data set."""

import importlib.metadata
import json
import logging
from pathlib import Path

from ml_collections import ConfigDict

from xdc_jax import config as config_lib
from xdc_jax.errors import UserError
from xdc_jax.files import write_atomically

log = logging.getLogger(__name__)


def claim(workdir: Path, config: ConfigDict, fingerprint: str) -> None:
    """Writes config.json into a new workdir; checks that of one that is gone on with.

    Args:
        workdir: folder of the run; made if missing.
        config: of the run.
        fingerprint: of its data.

    Raises:
        UserError: the workdir belongs to a run of another config or on other data.
    """
    record = {
        "config": json.loads(config.to_json()),
        "data": fingerprint,
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
        if before["data"] != record["data"]:
            raise UserError(
                f"{file}: this workdir belongs to a run on other data (fingerprint "
                f"{before['data']}, now {record['data']}); use a new workdir"
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
