"""What each method clusters, and which encoder learns to predict which clusters.

Definitions: XDC's pipeline figure (one small function here per panel). Two encoders,
`a` and `b`, see the same clips; they are `video` and `audio` for every method but
`xdc_same`.
"""

import dataclasses
from collections.abc import Callable

from xdc_jax.errors import UserError

LABEL = "label"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Which features are clustered and which head learns from which clustering.

    Attributes:
        encoders: encoder name -> the modality it sees, `video` or `audio`.
        clusterings: clustering name -> names of the encoders whose features, each
            L2-normalised and then concatenated if there are several, are clustered.
        heads: encoder name -> clusterings it is trained to predict, one head each.
            `label` stands for the data set's own labels.
    """

    encoders: dict[str, str]
    clusterings: dict[str, tuple[str, ...]]
    heads: dict[str, tuple[str, ...]]

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities a clip must have to be used, sorted."""
        return tuple(sorted(set(self.encoders.values())))


def _single(encoders: dict[str, str]) -> dict[str, tuple[str, ...]]:
    return {name: (name,) for name in encoders}


def sdc(encoders: dict[str, str]) -> Plan:
    """Single-modality deep clustering: each encoder learns its own clusters."""
    a, b = encoders
    return Plan(encoders, _single(encoders), {a: (a,), b: (b,)})


def mdc(encoders: dict[str, str]) -> Plan:
    """Multi-head deep clustering: each encoder learns both, with a head for each."""
    a, b = encoders
    return Plan(encoders, _single(encoders), {a: (a, b), b: (b, a)})


def cdc(encoders: dict[str, str]) -> Plan:
    """Concatenation deep clustering: both encoders learn joint clusters."""
    a, b = encoders
    return Plan(encoders, {"joint": (a, b)}, {a: ("joint",), b: ("joint",)})


def xdc(encoders: dict[str, str]) -> Plan:
    """Cross-modal deep clustering: each encoder learns the other's clusters."""
    a, b = encoders
    return Plan(encoders, _single(encoders), {a: (b,), b: (a,)})


def supervised(encoders: dict[str, str]) -> Plan:
    """Both encoders learn the labels of the data set; nothing is clustered."""
    return Plan(encoders, {}, {name: (LABEL,) for name in encoders})


METHODS: dict[str, Callable[[dict[str, str]], Plan]] = {
    "sdc": sdc,
    "mdc": mdc,
    "cdc": cdc,
    "xdc": xdc,
    "xdc_same": xdc,
    "supervised": supervised,
}


def make_plan(method: str, same_modality: str = "video") -> Plan:
    """Returns the plan of a method.

    Args:
        method: a key of `METHODS`.
        same_modality: for `xdc_same`, the modality that both encoders see.
    """
    if method not in METHODS:
        raise UserError(
            f"config.method is {method!r}; expected one of {', '.join(METHODS)}"
        )
    if method == "xdc_same":
        if same_modality not in ("video", "audio"):
            raise UserError(
                f"config.same_modality is {same_modality!r}; expected video or audio"
            )
        encoders = {same_modality: same_modality, f"{same_modality}_2": same_modality}
    else:
        encoders = {"video": "video", "audio": "audio"}
    return METHODS[method](encoders)
