"""The commands that fill a cell of the paper's tables."""

from xdc_jax.paper import published
from xdc_jax.paper.published import Column, Row

_FINETUNE_CONFIGS = {
    "ucf101": "configs/finetune_ucf101.py",
    "hmdb51": "configs/finetune_hmdb51.py",
    "esc50": "configs/finetune_esc50.py",
    "dcase2014": "configs/finetune_dcase.py",
}
_SVM_CLIPS = {"esc50": 10, "dcase2014": 60}
# The learning rate of a head for all layers: there is no encoder to be careful with.
SCRATCH_FLAG = "--config.optimizer.lr_body=0.02"

_LARGE = " --segment_s=100 --short_side=256"
# Records of whole videos and recordings, so that each has as many test clips.
PREPARE = (
    *(
        f"xdc prepare --dataset={dataset} --data_dir=~/{folder}{flags}"
        for dataset, folder, flags in (
            ("kinetics400", "kinetics400", " --out=data/kinetics400"),
            ("audioset240k", "audioset", " --out=data/audioset240k"),
            ("audioset", "audioset", " --out=data/audioset"),
            ("ucf101", "ucf101", " --segment_s=100 --out=data/ucf101"),
            ("hmdb51", "hmdb51", " --segment_s=100 --out=data/hmdb51"),
            ("ucf101", "ucf101", f"{_LARGE} --out=data/256/ucf101"),
            ("hmdb51", "hmdb51", f"{_LARGE} --out=data/256/hmdb51"),
            ("esc50", "ESC-50", " --out=data/esc50"),
            ("dcase2014", "dcase", " --segment_s=60 --out=data/dcase2014"),
            ("thumos14", "thumos14", " --out=data/thumos14"),
        )
    ),
    "xdc prepare --manifest=ig65m_kinetics.csv --out=data/ig65m_kinetics",
    "xdc prepare --manifest=ig65m_random.csv --out=data/ig65m_random",
)


def can_run(row: Row, column: Column) -> bool:
    """Says whether this project can fill a cell."""
    if row.pretraining == published.IMAGENET:  # has no audio encoder
        return column.modality == "video"
    return row.pretraining is not None


def name(row: Row) -> str:
    """Returns what the folders of a row's runs are called."""
    return f"{row.pretraining}_k{row.k}" if row.k else row.pretraining


def weights(row: Row) -> str:
    """Returns `--weights` of a row: a released name, `scratch`, or its workdir."""
    if row.pretraining in (published.SCRATCH, published.IMAGENET):
        return row.pretraining
    return f"runs/{name(row)}"


def pretrain(row: Row) -> str | None:
    """Returns how a row is pretrained; None if there is nothing to train."""
    if row.pretraining in (published.SCRATCH, published.IMAGENET):
        return None
    data = row.pretraining.rpartition("_")[0]
    data = "kinetics400" if data == "kinetics" else data
    k = f":k={row.k}" if row.k else ""
    return (
        f"xdc pretrain --config=configs/paper/{row.pretraining}.py{k} "
        f"--data=data/{data} --workdir={weights(row)}"
    )


def measure(column: Column, name: str, weights: str) -> str:
    """Returns how a column is measured.

    Args:
        column: of a table.
        name: what the folders of the pretraining's runs are called.
        weights: of the pretraining.
    """
    if column.protocol == "svm":
        features = f"features/{name}/{column.data}"
        return (
            f"xdc extract --workdir={weights} --data=data/{column.data} "
            f"--modality={column.modality} --clips={_SVM_CLIPS[column.data]} "
            f"--per_clip --window_s=2 --feature_map --out={features} "
            f"&& xdc evaluate --features={features} "
            f"--out=runs/{name}_{column.data}_svm"
        )
    if column.protocol == "g_tad":
        features = f"features/{name}/{column.data}"
        return (
            f"xdc extract --workdir={weights} --data=data/{column.data} "
            f"--modality={column.modality} --window_s=0.5 --stride_s=0.1666667 "
            f"--out={features} && xdc evaluate --features={features} "
            f"--gtad_out=gtad/data/thumos_feature/{name} "
            "--gtad_annotations=gtad/data/thumos_annotations"
        )
    config, arguments = _FINETUNE_CONFIGS[column.data], []
    data, workdir = column.data, f"runs/{name}_{column.data}"
    if column.protocol == "fc_only":
        arguments.append("train=fc_only")
        workdir += "_fc_only"
    if column.crop_size == 224:
        data = f"256/{column.data}"
        arguments += [f"clip.num_frames={column.num_frames}", "clip.crop_size=224"]
        arguments.append("clip.short_side=256")
        workdir += f"_{column.num_frames}x224"
    if arguments:
        config += f":{','.join(arguments)}"
    return (
        f"xdc finetune --config={config} --data=data/{data} --weights={weights} "
        f"--workdir={workdir}"
    )
