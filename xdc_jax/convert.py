"""Converts weights of PyTorch into an encoder of this project, or back.

Examples:
  xdc convert --weights=r2plus1d_18_xdc_audioset --out=encoders/xdc_audioset
  xdc convert --weights=model.pth --out=encoders/mine
  xdc convert --weights=runs/xdc_kinetics --modality=audio --to=torch --out=audio.pth

--weights is the name of a checkpoint that the authors of XDC released
(r2plus1d_18_xdc_ig65m_kinetics, r2plus1d_18_xdc_ig65m_random, r2plus1d_18_xdc_audioset,
r2plus1d_18_fs_kinetics, r2plus1d_18_fs_imagenet), which is downloaded once; a .pth or
.safetensors file with the names of torchvision's VideoResNet or ResNet; or, with
--to=torch, the workdir of a run or an encoder that this verb wrote.

Which network a file is of is read off the shapes of its tensors: R(2+1)D-18 of the XDC
release, that of torchvision, or an audio ResNet. A file is loaded as tensors only,
never as a program. The BatchNorm momentum 0.9 in the release's code is Caffe2's, the
share of the old statistics that is kept; training goes on with 0.1 of the new ones,
which is PyTorch's 0.1.
"""

import hashlib
from pathlib import Path

from absl import flags
from etils import epath

from xdc_jax.errors import UserError
from xdc_jax.files import absolute, local, reaching
from xdc_jax.models import registry
from xdc_jax.weights import encoder_dir, layout, published, torch_files
from xdc_jax.weights.encoder_dir import SavedEncoder
from xdc_jax.weights.layout import Comparison, StateDict

_MODELS = [*registry.VIDEO_ENCODERS, *registry.AUDIO_ENCODERS]
_MAX_LISTED = 12


def define_flags() -> None:
    """Defines the flags of this verb."""
    flags.DEFINE_string(
        "weights", None, "Released name, file, encoder or workdir.", required=True
    )
    flags.DEFINE_string("out", None, "Folder or file to write.", required=True)
    flags.DEFINE_enum(
        "to", "xdc", ["xdc", "torch"], "An encoder of this project, or a PyTorch file."
    )
    flags.DEFINE_enum(
        "model", None, _MODELS, "Fail unless the file is of this network."
    )
    flags.DEFINE_string(
        "modality", None, "Of a workdir: which encoder, such as video or audio."
    )


def main() -> None:
    """Runs the verb."""
    args = flags.FLAGS
    out = local(args.out, "out") if args.to == "torch" else absolute(args.out)
    if args.to == "torch":
        encoder = open_encoder(args.weights, args.modality)
        torch_files.write(out, layout.to_torch(encoder.variables, encoder.spec))
    else:
        if args.modality is not None:
            raise UserError("--modality is of workdirs; a file has one encoder")
        encoder, agreement = read_torch(args.weights, args.model)
        print(agreement)
        with reaching(out):
            encoder_dir.save(out, encoder)
    print(f"{out}: {describe(encoder)}")


def read_torch(name_or_file: str, model: str | None = None) -> tuple[SavedEncoder, str]:
    """Reads a released checkpoint or a PyTorch file.

    Args:
        name_or_file: a key of `published.HASH_PREFIXES`, or a file.
        model: a key of the registry; None takes what the shapes say.

    Returns:
        The encoder, and a table of what agreed, to be printed.

    Raises:
        UserError: no such name or file, it is damaged, or it is of another network.
    """
    if name_or_file in published.HASH_PREFIXES:
        path = published.fetch(name_or_file)
    else:
        path = local(name_or_file, "weights")
        if not path.exists():
            raise UserError(
                f"{name_or_file}: no such file, and no released checkpoint; those are "
                + ", ".join(published.HASH_PREFIXES)
            )
    state = torch_files.read(path)
    try:
        comparison = layout.recognise(state)
        if model is not None and model != comparison.spec.name:
            spec = layout.ModelSpec(
                model, comparison.spec.width, comparison.spec.stage_sizes
            )
            comparison = layout.compare(state, spec)
        agreement = table(state, comparison)
        if not comparison.fits:
            raise UserError(f"{_disagreement(comparison)}\n{agreement}")
        variables = layout.from_torch(state, comparison.spec)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    encoder = SavedEncoder(
        spec=comparison.spec,
        normalization="kinetics",
        source=f"{path.name}, SHA-256 {digest}",
        variables=variables,
        pretraining={"name": Path(name_or_file).stem},
    )
    return encoder, agreement


def open_encoder(weights: epath.PathLike, name: str | None = None) -> SavedEncoder:
    """Reads an encoder of this project: one that was converted, or one of a run.

    Args:
        weights: a folder that `xdc convert` wrote, or a workdir of `xdc pretrain`.
        name: which encoder of a workdir.

    Raises:
        UserError: there is none.
    """
    with reaching(weights):
        return _open_encoder(absolute(weights), name)


def _open_encoder(folder: epath.Path, name: str | None) -> SavedEncoder:
    if encoder_dir.is_encoder(folder):
        encoder = encoder_dir.load(folder)
        if name not in (None, encoder.spec.modality):
            raise UserError(
                f"{folder}: is a {encoder.spec.modality} encoder, not {name}"
            )
        return encoder
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder}: found neither encoder.json nor config.json, expected a folder "
            "that `xdc convert` wrote or a workdir of `xdc pretrain`"
        )
    if name is None:
        raise UserError(
            f"{folder}: has several encoders; give --modality=video or audio"
        )
    return encoder_dir.of_run(folder, name)


def load(weights: epath.PathLike, name: str | None = None) -> SavedEncoder:
    """Reads an encoder of any kind: what `read_torch` or what `open_encoder` reads.

    Args:
        weights: a released name, a PyTorch file, a converted encoder or a workdir.
        name: which encoder of a workdir.

    Raises:
        UserError: there is none, or it is damaged.
    """
    if str(weights) in published.HASH_PREFIXES or Path(weights).expanduser().is_file():
        return read_torch(str(weights))[0]
    return open_encoder(weights, name)


def table(state: StateDict, comparison: Comparison) -> str:
    """Returns what of a file agrees with an encoder, as lines to print."""
    head = [
        f"{name} {list(state[name].shape)}" for name in layout.HEAD if name in state
    ]
    differing = [
        f"{name} {list(found)}, expected {list(expected)}"
        for name, (found, expected) in comparison.differing.items()
    ]
    rows = [
        ("matched", comparison.matched, ()),
        ("of another shape", differing, differing),
        ("missing", comparison.missing, comparison.missing),
        ("classifier", head, head),
        ("unexpected", comparison.unexpected, comparison.unexpected),
    ]
    lines = [
        f"{comparison.spec.name}, width {comparison.spec.width}, "
        f"stages {comparison.spec.stage_sizes}",
        "| tensors          | count |",
        "| ---------------- | ----- |",
    ]
    lines += [f"| {name:<16} | {len(items):>5} |" for name, items, _ in rows]
    for name, _, listed in rows:
        lines += [f"{name}: {item}" for item in listed[:_MAX_LISTED]]
        if len(listed) > _MAX_LISTED:
            lines.append(f"{name}: and {len(listed) - _MAX_LISTED} more")
    return "\n".join(lines)


def _disagreement(comparison: Comparison) -> str:
    names = [*comparison.differing, *comparison.missing]
    listed = ", ".join(names[:_MAX_LISTED])
    more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
    return (
        f"not the weights of {comparison.spec.name}: {len(names)} tensors are missing "
        f"or have another shape ({listed}{more}); see below"
    )


def describe(encoder: SavedEncoder) -> str:
    """Returns one line about an encoder."""
    _, params, _ = layout.abstract(encoder.spec)
    count = sum(leaf.size for _, leaf in layout.paths(params))
    head = encoder.variables.head
    classes = f", classifier of {len(head['bias'])} classes" if "bias" in head else ""
    return f"{encoder.spec.name}, {count:,} parameters{classes}, from {encoder.source}"
