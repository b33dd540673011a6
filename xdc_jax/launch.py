r"""Creates a TPU slice, runs a job on all its hosts, and survives preemption.

Examples:
  xdc launch --config=configs/xdc_kinetics.py:k=256 --data=gs://bucket/kinetics \
      --workdir=gs://bucket/runs/xdc --tpu=v5litepod-16 --zone=us-west4-a \
      --name=xdc-kinetics --spot
  xdc launch --verb=finetune --config=configs/finetune_ucf101.py \
      --data=gs://bucket/ucf101 --workdir=gs://bucket/runs/ucf101 \
      --arg=--weights=gs://bucket/runs/xdc --tpu=v5litepod-8 --zone=us-west4-a \
      --name=ucf101
  xdc launch --stop --name=xdc-kinetics --zone=us-west4-a

Needs Google's gcloud, logged in (`gcloud auth login`), and a project with TPU quota.
Asks for a queued resource; waits until it is active; copies what git tracks here to
every worker; installs requirements.txt and the `tpu` extra there, in an environment of
its own; runs `xdc VERB` on every worker. --arg adds an argument to that, once for each:
--arg=--config.seed=1. The output of worker N goes to LOGS/attempt_K/worker_N.log, that
of worker 0 also here.

The slice is deleted at the end: when the job is done, when it fails, on Ctrl-C. (Not if
this process is killed: then --stop deletes it.) The job runs on when the connection
breaks; this command connects again. When the slice is preempted, or the job ends with
status 75 (it was asked to end, and wrote a checkpoint), the slice is deleted and
created anew, and the same command goes on from its workdir: hence the gs:// paths.

Exit status: 0, the job is done; 1, it failed; 2, something is wrong with the request;
75, --max_restarts are used up; 130, interrupted.

--dry_run prints the commands, to be pasted into a shell, and runs none.
"""

import logging
import re
import runpy
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

from absl import flags

from xdc_jax.errors import UserError
from xdc_jax.launching import commands, gcloud, job

log = logging.getLogger(__name__)

VERBS = ("pretrain", "finetune")
NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
ROOT = Path(__file__).resolve().parents[1]


def define_flags() -> None:
    """Defines the flags of this verb."""
    flags.DEFINE_string("name", None, "Of the slice; new in its zone.", required=True)
    flags.DEFINE_string("zone", None, "Such as us-west4-a.", required=True)
    flags.DEFINE_string("project", None, "Default: that of gcloud.")
    flags.DEFINE_string("tpu", None, "Accelerator type, such as v5litepod-16.")
    flags.DEFINE_string("runtime_version", None, "Default: the one for --tpu.")
    flags.DEFINE_bool("spot", False, "Cheaper, and preempted at any time.")
    flags.DEFINE_enum("verb", "pretrain", VERBS, "What to run.")
    flags.DEFINE_string("config", None, "Of the verb: FILE.py or FILE.py:key=value,...")
    flags.DEFINE_string("data", None, "Of the verb: gs://...")
    flags.DEFINE_string("workdir", None, "Of the verb: gs://...")
    flags.DEFINE_multi_string("arg", [], "Another argument of the verb.")
    flags.DEFINE_integer("max_restarts", 20, "New slices after preemptions.", 0)
    flags.DEFINE_bool("keep", False, "Leave the last slice, and the job on it, alone.")
    flags.DEFINE_string("logs", None, "Folder; default: runs/launch/NAME.")
    flags.DEFINE_float("poll_s", 30.0, "Seconds between looks at the state.", 0.01)
    flags.DEFINE_bool("dry_run", False, "Only print the commands.")
    flags.DEFINE_bool("stop", False, "Only delete the slice.")


def main() -> int:
    """Runs the verb."""
    args = flags.FLAGS
    if not NAME.fullmatch(args.name):
        raise UserError(
            f"--name: found {args.name!r}, expected lower-case letters, digits and "
            "dashes, a letter first and no dash last"
        )
    tpu = commands.Slice(args.name, args.zone, args.project)
    if args.stop:
        return _stop(tpu, args.dry_run)
    if not args.tpu:
        raise UserError("--tpu is missing: the accelerator type, such as v5litepod-16")
    runtime = args.runtime_version or commands.runtime_version(args.tpu)
    create = tpu.create(args.tpu, runtime, args.spot)
    verb = job_arguments(args)
    logs = Path(args.logs or f"runs/launch/{args.name}").expanduser().absolute()
    archive = logs / commands.ARCHIVE
    if args.dry_run:
        _print_commands(tpu, create, archive, verb)
        return 0

    _check_gcloud()
    if gcloud.find(tpu.requests(), tpu.name):
        raise UserError(
            f"--name: {tpu.name} is a queued resource in {tpu.zone} already; take "
            f"another name, or delete it: xdc launch --stop --name={tpu.name} "
            f"--zone={tpu.zone}"
        )
    _pack(archive)
    launch = job.Launch(tpu, create, archive, verb, logs, args.poll_s)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup makes it
            signal.signal(number, signal.default_int_handler)
    try:
        return launch.run(args.max_restarts)
    finally:
        if args.keep:
            log.warning(
                "%s is kept, and costs money until: %s",
                tpu.name,
                shlex.join(tpu.delete()),
            )
        else:
            launch.delete()


def job_arguments(args: flags.FlagValues) -> list[str]:
    """Returns the arguments of `xdc` on the workers; UserError if they cannot work."""
    for name in ("config", "data", "workdir"):
        if not args[name].value:
            raise UserError(f"--{name} is missing: xdc {args.verb} needs it")
    if args.verb == "finetune" and not any(a.startswith("--weights") for a in args.arg):
        raise UserError("--arg=--weights=... is missing: xdc finetune needs it")
    found = [args.verb, f"--config={_config(args.config)}"]
    for name in ("data", "workdir"):
        value = args[name].value
        if not value.startswith("gs://"):
            log.warning(
                "--%s=%s is a path on the disk of each worker, which ends with the "
                "slice; expected gs://...",
                name,
                value,
            )
        found.append(f"--{name}={value}")
    return [*found, *args.arg]


def _config(value: str) -> str:
    """Returns --config as the workers see it, from the root of the source tree."""
    name, *arguments = value.split(":", 1)  # as ml_collections does
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise UserError(f"--config: there is no file {name}")
    if path not in _tracked():
        raise UserError(
            f"--config: {name} is not among the files that git tracks in {ROOT}, which "
            "the workers get; move it there and `git add` it"
        )
    runpy.run_path(str(path))["get_config"](*arguments)  # errors now, not on the slice
    return ":".join([str(path.relative_to(ROOT)), *arguments])


def _tracked() -> set[Path]:
    names, _ = commands.pack(ROOT, Path(commands.ARCHIVE))
    done = subprocess.run(names, capture_output=True, text=True)
    if done.returncode:
        raise UserError(
            f"xdc launch sends what git tracks beside it, but {ROOT} is no checkout: "
            f"{done.stderr.strip()}; clone the repository and install it with "
            "`pip install --editable .`"
        )
    return {ROOT / name for name in done.stdout.split("\0")}


def _pack(archive: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    names, tar = commands.pack(ROOT, archive)
    listed = subprocess.run(names, check=True, capture_output=True)
    done = subprocess.run(tar, input=listed.stdout, capture_output=True)
    if done.returncode:
        raise UserError(
            f"{archive} could not be written; a file that git tracks may be missing "
            f"(restore it, or `git rm` it): {done.stderr.decode().strip()}"
        )


def _check_gcloud() -> None:
    if shutil.which("gcloud") is None:
        raise UserError(
            "gcloud is not on the PATH; install the Google Cloud CLI "
            "(https://cloud.google.com/sdk/docs/install), then run `gcloud auth login` "
            "and `gcloud config set project PROJECT`"
        )


def _stop(tpu: commands.Slice, dry_run: bool) -> int:
    if dry_run:
        print(shlex.join(tpu.delete()))
        return 0
    _check_gcloud()
    if not gcloud.find(tpu.requests(), tpu.name):
        raise UserError(f"--name: there is no queued resource {tpu.name} in {tpu.zone}")
    gcloud.call(tpu.delete())
    print(f"{tpu.name} is deleted")
    return 0


def _print_commands(
    tpu: commands.Slice, create: list[str], archive: Path, verb: list[str]
) -> None:
    steps = {
        "Pack what git tracks": [["mkdir", "-p", str(archive.parent)]],
        "Ask for the slice": [create],
        "Look, until the queued resource is ACTIVE; then, whether it is still there": [
            tpu.requests(),
            tpu.nodes(),
        ],
        "Copy and install": [
            tpu.copy(archive),
            tpu.ssh(commands.install(), "all"),
        ],
        "Run on worker 0; at the same time on 1, 2, ..., as many as networkEndpoints": [
            tpu.ssh(commands.start(verb), 0)
        ],
        "Delete the slice; after a preemption, begin again": [tpu.delete()],
    }
    for title, step in steps.items():
        print(f"# {title}")
        for command in step:
            print(shlex.join(command))
        if title.startswith("Pack"):
            print(" | ".join(map(shlex.join, commands.pack(ROOT, archive))))
