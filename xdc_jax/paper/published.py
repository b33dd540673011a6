"""The numbers of the XDC paper's tables, each with how far it is to be trusted.

The PDF of the paper was not at hand. Verified are the numbers that the authors state in
the README of their release, HumamAlwassel/XDC. All others wait for a comparison with
the PDF; until then they must not be shown as the paper's without their mark. The tables
have titles of our own, because their numbers in the paper are not known for certain.
The lower values of the state of the art in the paper's first versions of 2019 (v1, v2)
are left out.
"""

import dataclasses
import enum

# Clusters of the video and of the audio encoder in the authors' Kinetics gallery.
GALLERY_CLUSTERS = (64, 128)

# data -> the parts whose mean is its official measure.
OFFICIAL_PARTS = {
    "ucf101": ("split 1", "split 2", "split 3"),
    "hmdb51": ("split 1", "split 2", "split 3"),
    "esc50": ("fold 1", "fold 2", "fold 3", "fold 4", "fold 5"),
    "dcase2014": ("test",),
    "thumos14": ("test",),
}

# Pretraining of configs/paper -> the weights that the authors released of the same.
RELEASED = {
    "ig65m_kinetics_xdc": "r2plus1d_18_xdc_ig65m_kinetics",
    "ig65m_random_xdc": "r2plus1d_18_xdc_ig65m_random",
    "audioset_xdc": "r2plus1d_18_xdc_audioset",
    "kinetics_supervised": "r2plus1d_18_fs_kinetics",
}
# Released alone: inflating 2-D filters that were trained on ImageNet has no config.
IMAGENET = "r2plus1d_18_fs_imagenet"
SCRATCH = "scratch"


class Trust(enum.StrEnum):
    """Where a number comes from."""

    VERIFIED = "verified"  # read in the authors' README, or the data set's
    SECONDARY = "secondary"  # another paper says so of this one
    UNVERIFIED = "unverified"  # remembered, and compared with nothing


@dataclasses.dataclass(frozen=True)
class Published:
    """A number of the paper.

    Attributes:
        text: per cent, with the digits that are known.
        trust: of this number.
    """

    text: str
    trust: Trust

    @property
    def percent(self) -> float:
        """The number."""
        return float(self.text)

    def __str__(self) -> str:
        if self.trust == Trust.VERIFIED:
            return self.text
        return f"{self.text} ({self.trust})"


@dataclasses.dataclass(frozen=True)
class Column:
    """A downstream result, of which each pretraining has one.

    Attributes:
        name: heading.
        data: name of the data set, as `xdc prepare --dataset` has it.
        modality: whose encoder is measured, `video` or `audio`.
        protocol: `full` or `fc_only` finetuning, `svm` on frozen features, or `g_tad`,
            a detector of temporal actions, which is not part of this project.
        num_frames: of a video clip.
        crop_size: of a video clip, pixels.
    """

    name: str
    data: str
    modality: str
    protocol: str
    num_frames: int | None = None
    crop_size: int | None = None


@dataclasses.dataclass(frozen=True)
class Row:
    """A pretraining.

    Attributes:
        name: heading.
        pretraining: `config.name` of the config of this name in configs/paper, the name
            of released weights, or `scratch`; None for what is not of this project.
        published: a number per column, None where none is known.
        k: clusters of either modality, where the row is about their number.
        released: weights of the same pretraining that fill the row as well.
    """

    name: str
    pretraining: str | None
    published: tuple[Published | None, ...]
    k: int | None = None
    released: str | None = None


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the paper.

    Attributes:
        name: short, for labels and files.
        title: what it compares.
        about: what the reader must know of its settings.
        columns: downstream results.
        rows: pretrainings.
    """

    name: str
    title: str
    about: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def _numbers(trust: Trust, texts: str) -> tuple[Published | None, ...]:
    """Reads `54.5 24.1 -`: one number per column, a dash where none is known."""
    return tuple(
        None if text == "-" else Published(text, trust) for text in texts.split()
    )


def _row(
    name: str,
    pretraining: str | None,
    texts: str,
    trust: Trust = Trust.UNVERIFIED,
    k: int | None = None,
) -> Row:
    return Row(name, pretraining, _numbers(trust, texts), k)


def _also_released(*rows: Row) -> tuple[Row, ...]:
    return tuple(
        dataclasses.replace(row, released=RELEASED.get(row.pretraining)) for row in rows
    )


_UCF101 = Column("UCF101", "ucf101", "video", "full", 8, 112)
_HMDB51 = Column("HMDB51", "hmdb51", "video", "full", 8, 112)
_ESC50 = Column("ESC-50", "esc50", "audio", "full")
_SMALL_CLIPS = (
    "Full finetuning. Video clips have 8 frames (unverified) of 112 x 112 pixels (a "
    "stand-in)."
)
_CLUSTERS = (
    "Ours has {} video and {} audio clusters, as in the authors' Kinetics gallery; the "
    "paper may show the best k of each test set (unverified)."
).format(*GALLERY_CLUSTERS)

METHODS = Table(
    "methods",
    "Clustering within and across modalities, pretraining on Kinetics",
    f"{_SMALL_CLIPS} {_CLUSTERS}",
    (_UCF101, _HMDB51, _ESC50),
    (
        _row("Scratch", SCRATCH, "54.5 24.1 54.3"),
        _row("Supervised", "kinetics_supervised", "90.9 58.0 82.3"),
        _row("SDC", "kinetics_sdc", "61.8 31.4 66.5"),
        _row("MDC", "kinetics_mdc", "68.4 37.1 70.3"),
        _row("CDC", "kinetics_cdc", "72.9 37.5 74.8"),
        _row("XDC", "kinetics_xdc", "74.2 39.0 78.0"),
    ),
)
NUM_CLUSTERS = Table(
    "num_clusters",
    "Number of clusters of XDC, pretraining on Kinetics",
    f"{_SMALL_CLIPS} Both modalities have k clusters.",
    (_UCF101, _HMDB51, _ESC50),
    tuple(
        _row(f"XDC, k = {k}", "kinetics_xdc", texts, k=k)
        for k, texts in {
            64: "73.8 36.5 78.0",
            128: "73.1 39.0 76.3",
            256: "74.2 38.3 75.0",
            512: "74.0 37.7 74.5",
            1024: "72.6 37.7 71.5",
        }.items()
    ),
)
PRETRAINING_DATA = Table(
    "pretraining_data",
    "Type and size of the pretraining data",
    f"{_SMALL_CLIPS} {_CLUSTERS}",
    (_UCF101, _HMDB51, _ESC50),
    (
        _row("Supervised, ImageNet (1.2M images)", IMAGENET, "79.9 44.5 -"),
        _row("Supervised, Kinetics (240K)", "kinetics_supervised", "90.9 58.0 82.3"),
        _row(
            "Supervised, AudioSet-240K (240K)",
            "audioset240k_supervised",
            "76.6 40.8 78.3",
        ),
        _row("Supervised, AudioSet (2M)", "audioset_supervised", "84.0 53.5 90.3"),
        _row("XDC, Kinetics (240K)", "kinetics_xdc", "74.2 39.0 78.0"),
        _row("XDC, AudioSet-240K (240K)", "audioset240k_xdc", "77.4 42.8 78.5"),
        _row("XDC, AudioSet (2M)", "audioset_xdc", "84.9 48.8 84.3"),
        _row("XDC, IG-Random (65M)", "ig65m_random_xdc", "88.8 61.2 86.3"),
        _row("XDC, IG-Kinetics (65M)", "ig65m_kinetics_xdc", "91.5 63.1 84.8"),
    ),
)
FC_ONLY = Table(
    "fc_only",
    "Last layer alone against full finetuning",
    "Video clips have 8 frames (unverified) of 112 x 112 pixels (a stand-in). "
    f"{_CLUSTERS}",
    (
        Column("UCF101, fc only", "ucf101", "video", "fc_only", 8, 112),
        Column("UCF101, full", "ucf101", "video", "full", 8, 112),
        Column("HMDB51, fc only", "hmdb51", "video", "fc_only", 8, 112),
        Column("HMDB51, full", "hmdb51", "video", "full", 8, 112),
        Column("ESC-50, fc only", "esc50", "audio", "fc_only"),
        Column("ESC-50, full", "esc50", "audio", "full"),
    ),
    (
        _row(
            "Supervised, Kinetics",
            "kinetics_supervised",
            "89.7 90.9 61.5 58.0 79.5 82.3",
        ),
        _row(
            "Supervised, AudioSet",
            "audioset_supervised",
            "80.2 84.0 51.6 53.5 88.5 90.3",
        ),
        _row("XDC, IG-Random", "ig65m_random_xdc", "80.7 88.8 49.9 61.2 84.5 86.3"),
        _row("XDC, IG-Kinetics", "ig65m_kinetics_xdc", "85.3 91.5 56.0 63.1 84.3 84.8"),
    ),
)
VIDEO = Table(
    "video",
    "State of the art, video",
    "Full finetuning of R(2+1)D-18, mean of three splits; clips have 32 frames of "
    f"224 x 224 pixels (their size is secondary). {_CLUSTERS}",
    (
        Column("UCF101", "ucf101", "video", "full", 32, 224),
        Column("HMDB51", "hmdb51", "video", "full", 32, 224),
    ),
    _also_released(
        _row("Supervised, ImageNet", IMAGENET, "84.0 48.1", Trust.VERIFIED),
        _row(
            "Supervised, Kinetics", "kinetics_supervised", "94.2 65.1", Trust.VERIFIED
        ),
        _row("XDC, Kinetics", "kinetics_xdc", "86.8 52.6", Trust.SECONDARY),
        _row("XDC, AudioSet", "audioset_xdc", "93.0 63.7", Trust.VERIFIED),
        _row("XDC, IG-Random", "ig65m_random_xdc", "94.6 66.5", Trust.VERIFIED),
        _row("XDC, IG-Kinetics", "ig65m_kinetics_xdc", "95.5 68.9", Trust.VERIFIED),
    ),
)
AUDIO = Table(
    "audio",
    "State of the art, audio",
    "Linear SVM on frozen features of 2-second clips, 10 per recording of ESC-50, 60 "
    "of DCASE (the protocol is unverified, as is the test set of DCASE). No audio "
    f"encoder was released. {_CLUSTERS}",
    (
        Column("ESC-50", "esc50", "audio", "svm"),
        Column("DCASE", "dcase2014", "audio", "svm"),
    ),
    (
        _row("Human", None, "81.3 -", Trust.VERIFIED),
        _row("AVTS, SoundNet data", None, "82.3 94"),
        _row("XDC, AudioSet", "audioset_xdc", "84.8 95"),
        _row("XDC, IG-Random", "ig65m_random_xdc", "85.4 95"),
    ),
)
LOCALIZATION = Table(
    "localization",
    "Temporal action localization, G-TAD on frozen features",
    "Mean average precision at tIoU 0.5. This project writes features as G-TAD reads "
    "them; the detector is another's, so nothing of ours is read into this table. "
    "Which pretraining the number of XDC belongs to is unverified, and it is rounded.",
    (Column("THUMOS14", "thumos14", "video", "g_tad"),),
    (
        _row("Supervised, Kinetics", "kinetics_supervised", "36.6"),
        _row("XDC, IG-Kinetics", "ig65m_kinetics_xdc", "37"),
    ),
)

TABLES = (
    METHODS,
    NUM_CLUSTERS,
    PRETRAINING_DATA,
    FC_ONLY,
    VIDEO,
    AUDIO,
    LOCALIZATION,
)
