"""Cross-Modal Deep Clustering of video and audio: `xdc VERB --flags`.

`python -m xdc_jax` is the same program. `xdc VERB --help` explains a verb.
Exit status: 0 done, 2 an error that is explained, 75 preempted: start again to go on.
"""

import difflib
import importlib
import logging
import os
import sys
import traceback

from absl import flags
from absl import logging as absl_logging

from xdc_jax import preemption
from xdc_jax.errors import UserError

# verb -> (module, what it does)
VERBS = {
    "convert": ("xdc_jax.convert", "PyTorch weights -> an encoder, and back"),
    "demo": ("xdc_jax.demo", "show XDC beat single-modal clustering, in minutes"),
    "evaluate": ("xdc_jax.evaluate", "features -> linear SVM, retrieval, clusters"),
    "extract": ("xdc_jax.extract", "clips -> features, as a TFDS data set"),
    "finetune": ("xdc_jax.finetune", "train on labels, and test: clips and videos"),
    "launch": ("xdc_jax.launch", "a TPU slice: create, run a job, outlive preemption"),
    "plan": ("xdc_jax.plan", "compile for a TPU slice without one: memory, time"),
    "prepare": ("data_pipelines.prepare", "media files -> shards of clips"),
    "pretrain": ("xdc_jax.pretrain", "the deep-clustering loop on prepared clips"),
    "tables": ("xdc_jax.tables", "results of many runs -> the paper's tables"),
}


def _usage() -> str:
    lines = [__doc__.strip(), "", "verbs:"]
    lines += [f"  {verb:<10} {text}" for verb, (_, text) in VERBS.items()]
    return "\n".join(lines)


def _fail(verb: str, message: object) -> int:
    print(f"xdc {verb}: error: {message}", file=sys.stderr)
    return 2


def _in_job() -> bool:
    """Whether this process has met the others of a job."""
    jax = sys.modules.get("jax")
    return bool(jax) and jax.distributed.is_initialized()


def _leave(status: int) -> int:
    """Returns the exit status, or in a job of several processes ends this one with it.

    At its regular end it would wait for the others, which may wait for it.
    """
    if _in_job():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def main(argv: list[str] | None = None) -> int:
    """Runs the verb named by the first argument and returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    verb, *rest = argv
    if verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        print(f"xdc: unknown verb {verb!r}{hint}\n\n{_usage()}", file=sys.stderr)
        return 2
    module = importlib.import_module(VERBS[verb][0])
    module.define_flags()
    if any(arg in ("-h", "--help", "-help") for arg in rest):
        print(f"{module.__doc__.strip()}\n{flags.FLAGS.module_help(module)}")
        if hasattr(module, "help_end"):
            print(module.help_end(), end="")
        return 0
    try:
        positional = flags.FLAGS([f"xdc {verb}", *rest])[1:]
    except (
        flags.Error,
        AttributeError,
        KeyError,
        TypeError,
        UserError,
    ) as error:
        return _fail(verb, error)
    if positional:
        return _fail(
            verb, f"unexpected argument {positional[0]!r}; see xdc {verb} --help"
        )
    absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax logs every file
    logging.basicConfig(
        format="%(asctime)s %(message)s", datefmt="%H:%M:%S", force=True
    )
    logging.getLogger("xdc_jax").setLevel(logging.INFO)
    try:
        return module.main() or 0
    except preemption.PreemptedError as notice:
        print(f"xdc {verb}: {notice}", file=sys.stderr)
        status = preemption.EXIT_STATUS
        return status if notice.together else _leave(status)
    except (UserError, OSError) as error:  # OSError: of files, such as a full disk
        return _leave(_fail(verb, error))
    except KeyboardInterrupt:
        print(f"xdc {verb}: interrupted", file=sys.stderr)
        return _leave(130)
    except Exception:
        if not _in_job():
            raise
        traceback.print_exc()
        return _leave(1)


if __name__ == "__main__":
    sys.exit(main())
