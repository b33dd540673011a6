"""The commands that `xdc launch` runs, as lists of arguments; none is run here.

Checked against the gcloud reference (docs.cloud.google.com/sdk/gcloud/reference,
compute tpus queued-resources and tpu-vm) and the commands' source in SDK 528.
"""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from xdc_jax.errors import UserError

# docs.cloud.google.com/tpu/docs/runtimes, "PyTorch and JAX", by the prefix of the type.
RUNTIME_VERSIONS = {
    "v6e": "v2-alpha-tpuv6e",
    "v5p": "v2-alpha-tpuv5",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v4": "tpu-ubuntu2204-base",
    "v3": "tpu-ubuntu2204-base",
    "v2": "tpu-ubuntu2204-base",
}

ARCHIVE = "xdc_source.tar.gz"
FOLDER = "xdc_job"  # on a worker, in the home folder: where ssh and scp begin
# The runtime images have Python 3.10, too old for us; uv fetches one that fits.
UV = "uv==0.13.9"


def runtime_version(tpu: str) -> str:
    """Returns the runtime version for an accelerator type such as `v5litepod-16`."""
    prefix = tpu.split("-")[0]
    if prefix not in RUNTIME_VERSIONS:
        raise UserError(
            f"--tpu: found {tpu!r}, expected a type such as v4-32, v5litepod-16, "
            f"v5p-8 or v6e-16 (one of {', '.join(RUNTIME_VERSIONS)}, a dash, a size); "
            "or name its --runtime_version"
        )
    return RUNTIME_VERSIONS[prefix]


@dataclasses.dataclass(frozen=True)
class Slice:
    """A TPU slice to come, and what gcloud is to be told about it.

    Attributes:
        name: of the queued resource, and of the node in it.
        zone: such as us-west4-a.
        project: None is gcloud's own default.
    """

    name: str
    zone: str
    project: str | None = None

    def _gcloud(self, *words: str) -> list[str]:
        where = [f"--zone={self.zone}"]
        if self.project:
            where.append(f"--project={self.project}")
        # Quiet: there is nobody to ask; a missing SSH key is made without passphrase.
        return ["gcloud", "compute", "tpus", *words, *where, "--quiet"]

    def create(self, tpu: str, runtime: str, spot: bool) -> list[str]:
        """Returns the command that asks for the slice."""
        return self._gcloud(
            "queued-resources",
            "create",
            self.name,
            f"--node-id={self.name}",
            f"--accelerator-type={tpu}",
            f"--runtime-version={runtime}",
            *(["--spot"] if spot else []),
        )

    def requests(self) -> list[str]:
        """Returns the command that lists the queued resources of the zone.

        Not `describe`: that of an absent one fails as it does without a network.
        """
        return self._gcloud("queued-resources", "list", "--format=json")

    def nodes(self) -> list[str]:
        """Returns the command that lists the nodes of the zone."""
        return self._gcloud("tpu-vm", "list", "--format=json")

    def delete(self) -> list[str]:
        """Returns the command that deletes the queued resource and its node."""
        return self._gcloud("queued-resources", "delete", self.name, "--force")

    def copy(self, archive: Path) -> list[str]:
        """Returns the command that copies the archive to every worker."""
        return self._gcloud(
            "tpu-vm", "scp", str(archive), f"{self.name}:{ARCHIVE}", "--worker=all"
        )

    def ssh(self, command: str, worker: int | str) -> list[str]:
        """Returns the command that runs a shell command on one worker, or on `all`.

        Args:
            command: made with `shlex.join` alone: a shell on the worker splits it.
            worker: number, or `all`: on all at the same time.
        """
        # Not --output-directory: SDK 528 writes such logs into a folder named None.
        return self._gcloud(
            "tpu-vm", "ssh", self.name, f"--worker={worker}", f"--command={command}"
        )


def pack(root: Path, archive: Path) -> tuple[list[str], list[str]]:
    """Returns two commands, a pipe: what git tracks in `root`, as an archive."""
    names = ["git", "-C", str(root), "ls-files", "-z", "--", ".", ":(exclude)runs"]
    tar = ["tar", "-C", str(root), "--null", "-T", "-", "-czf", str(archive)]
    return names, tar


def install() -> str:
    """Returns the shell command that unpacks and installs the source on a worker."""
    # The same minor version as here, so that requirements.txt pins the same versions.
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    uv = f"{FOLDER}/.uv/bin/uv"
    venv = f"{FOLDER}/.venv"
    steps = (
        ["mkdir", "-p", FOLDER],
        ["tar", "-xzf", ARCHIVE, "-C", FOLDER],
        ["python3", "-m", "pip", "install", "-q", f"--target={FOLDER}/.uv", UV],
        [uv, "venv", "-q", "--clear", f"--python={python}", venv],
        [
            *(uv, "pip", "install", "-q", f"--python={venv}/bin/python"),
            f"--requirement={FOLDER}/requirements.txt",
            f"--editable={FOLDER}[tpu]",
        ],
    )
    return " && ".join(shlex.join(step) for step in steps)


def start(job: Sequence[str], offset: int = 0) -> str:
    """Returns the shell command that starts or follows the job on a worker.

    Args:
        job: the arguments of `xdc`.
        offset: how many bytes of the job's log are here already.
    """
    script = "xdc_jax/launching/on_worker.py"
    command = ["python3", script, str(offset), ".venv/bin/xdc", *job]
    return f"{shlex.join(['cd', FOLDER])} && {shlex.join(command)}"
