"""An encoder in a folder: `encoder.json` says what it is, `arrays/` what it learned."""

import dataclasses
import json
import logging
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from flax import nnx
from jax.typing import DTypeLike

from xdc_jax import config as config_lib
from xdc_jax.clustering import targets
from xdc_jax.errors import UserError
from xdc_jax.files import absolute, write_atomically
from xdc_jax.training import checkpoint
from xdc_jax.training.state import Network
from xdc_jax.weights import layout
from xdc_jax.weights.layout import ModelSpec, Variables

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
_DESCRIPTION = "encoder.json"
_ARRAYS = "arrays"


@dataclasses.dataclass(frozen=True)
class SavedEncoder:
    """An encoder as it is stored.

    Attributes:
        spec: its structure.
        normalization: of the pictures it reads, a key of `steps.NORMALIZATIONS`.
        source: where the weights come from, in words.
        variables: what it learned.
        clip: the fields of `ClipSpec` that it was trained with; empty if unknown.
        pretraining: what tables of results say of it: `name`, and of a run of `xdc
            pretrain` also `seed`, `k_video` and `k_audio`.
    """

    spec: ModelSpec
    normalization: str
    source: str
    variables: Variables
    clip: dict[str, Any] = dataclasses.field(default_factory=dict)
    pretraining: dict[str, Any] = dataclasses.field(default_factory=dict)

    def network(self, dtype: DTypeLike = jnp.float32) -> Network:
        """Returns its structure, with activations of a type."""
        module = nnx.eval_shape(lambda: self.spec.create(dtype))
        return Network(
            modality=self.spec.modality,
            normalization=self.normalization,
            graphdef=nnx.graphdef(module),
            feature_dim=module.feature_dim,
        )


def save(folder: epath.PathLike, encoder: SavedEncoder) -> None:
    """Writes an encoder into a new folder.

    `encoder.json` comes last: a folder without it is unfinished, and is written again.

    Raises:
        UserError: the folder holds something else.
    """
    folder = absolute(folder)
    if folder.exists() and {path.name for path in folder.iterdir()} - {_ARRAYS}:
        raise UserError(
            f"{folder}: exists already and is not empty; choose another --out or "
            "remove it"
        )
    variables = encoder.variables
    checkpoint.write_arrays(
        folder / _ARRAYS,
        {
            "params": variables.params,
            "batch_stats": variables.batch_stats,
            "head": variables.head,
        },
    )
    description = {
        "format_version": FORMAT_VERSION,
        "model": dataclasses.asdict(encoder.spec),
        "normalization": encoder.normalization,
        "source": encoder.source,
        "clip": encoder.clip,
        "pretraining": encoder.pretraining,
        "num_batches_tracked": variables.counters,
    }
    write_atomically(folder / _DESCRIPTION, json.dumps(description, indent=2).encode())


def is_encoder(folder: epath.PathLike) -> bool:
    """Says whether a folder holds an encoder that `save` wrote."""
    return (absolute(folder) / _DESCRIPTION).is_file()


def load(folder: epath.PathLike) -> SavedEncoder:
    """Reads the encoder of a folder that `save` wrote.

    Raises:
        UserError: the folder holds none, or it is damaged.
    """
    folder = absolute(folder)
    file = folder / _DESCRIPTION
    try:
        description = json.loads(file.read_text())
        if description["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format version {description['format_version']}")
        model = description["model"]
        spec = ModelSpec(model["name"], model["width"], tuple(model["stage_sizes"]))
        normalization, source = description["normalization"], description["source"]
        clip, counters = description["clip"], description["num_batches_tracked"]
        pretraining = description.get("pretraining", {})
    except FileNotFoundError as error:
        raise UserError(
            f"{folder}: found no {_DESCRIPTION}, expected a folder that `xdc convert` "
            "wrote"
        ) from error
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not an encoder of xdc ({error!r})") from error
    arrays = checkpoint.read_arrays(folder / _ARRAYS)
    variables = _variables(spec, arrays, arrays.get("head") or {}, counters, folder)
    return SavedEncoder(spec, normalization, source, variables, clip, pretraining)


def of_run(workdir: epath.PathLike, name: str) -> SavedEncoder:
    """Reads an encoder from the newest checkpoint of a run of `xdc pretrain`.

    Args:
        workdir: of the run.
        name: of the encoder: `video` or `audio`, for `xdc_same` also `video_2` and so
            on, as in metrics.jsonl.

    Raises:
        UserError: no such run, encoder, or checkpoint.
    """
    workdir = absolute(workdir)
    config = read_config(workdir)
    encoders = targets.make_plan(config["method"], config["same_modality"]).encoders
    if name not in encoders:
        raise UserError(
            f"{workdir}: found encoders {', '.join(encoders)}, expected {name!r}"
        )
    model = config[f"{encoders[name]}_model"]
    spec = ModelSpec(model["name"], model["width"], tuple(model["stage_sizes"]))
    step, state = checkpoint.read_newest(workdir)
    if not (workdir / "results.json").exists():
        log.warning("%s: the run has not ended; this is its step %d", workdir, step)
    return SavedEncoder(
        spec=spec,
        normalization=config["video_normalization"],
        source=f"{workdir.name}, encoder {name} at step {step}",
        variables=_variables(
            spec, state["encoders"][name], {}, layout.counters(spec, step), workdir
        ),
        clip=config["clip"],
        pretraining=_pretraining(config),
    )


def _pretraining(config: dict[str, Any]) -> dict[str, Any]:
    method = config["method"] if config["iterations"] else "random"
    clustering = config["clustering"]
    return {
        "name": config["name"] or method,
        "seed": config["seed"],
        "k_video": clustering["k_video"],
        "k_audio": clustering["k_audio"],
    }


def read_config(workdir: epath.PathLike) -> dict[str, Any]:
    """Returns the config of a run of `xdc pretrain`.

    Raises:
        UserError: the folder is no workdir.
    """
    file = absolute(workdir) / "config.json"
    try:
        config = json.loads(file.read_text())["config"]
    except FileNotFoundError as error:
        raise UserError(
            f"{workdir}: found no config.json, expected a workdir of `xdc pretrain`"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: not a config that xdc wrote ({error!r})") from error
    missing = set(config_lib.pretrain_config()) - set(config)
    if missing:
        raise UserError(f"{file}: found no {sorted(missing)[0]}; not a config of xdc")
    return config


def _variables(
    spec: ModelSpec,
    arrays: dict[str, Any],
    head: dict[str, Any],
    counters: dict[str, int],
    where: epath.Path,
) -> Variables:
    """Gives stored arrays the tree of the encoder, whose lists have ints as keys."""
    _, params, batch_stats = layout.abstract(spec)

    def fill(tree, stored):
        def leaf(path, expected):
            found = stored
            try:
                for key in path:
                    found = found[str(key.key)]
            except (KeyError, TypeError):
                found = None
            if found is None or found.shape != expected.shape:
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                raise UserError(
                    f"{where}: {name} is {getattr(found, 'shape', 'missing')}, "
                    f"expected {expected.shape}; the arrays are of another encoder"
                )
            return found

        return jax.tree.map_with_path(leaf, tree)

    return Variables(
        fill(params, arrays.get("params")),
        fill(batch_stats, arrays.get("batch_stats")),
        head,
        counters,
    )
