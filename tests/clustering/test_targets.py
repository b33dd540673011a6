import pytest

from xdc_jax.clustering import targets
from xdc_jax.errors import UserError

VIDEO, AUDIO = "video", "audio"


@pytest.mark.parametrize(
    ("method", "clusterings", "heads"),
    [
        ("sdc", {VIDEO, AUDIO}, {VIDEO: (VIDEO,), AUDIO: (AUDIO,)}),
        ("mdc", {VIDEO, AUDIO}, {VIDEO: (VIDEO, AUDIO), AUDIO: (AUDIO, VIDEO)}),
        ("cdc", {"joint"}, {VIDEO: ("joint",), AUDIO: ("joint",)}),
        ("xdc", {VIDEO, AUDIO}, {VIDEO: (AUDIO,), AUDIO: (VIDEO,)}),
        ("supervised", set(), {VIDEO: ("label",), AUDIO: ("label",)}),
    ],
)
def test_each_method_trains_heads_as_the_figure_shows(method, clusterings, heads):
    plan = targets.make_plan(method)
    assert set(plan.clusterings) == clusterings
    assert plan.heads == heads
    assert plan.modalities == (AUDIO, VIDEO)


def test_xdc_same_needs_only_its_modality():
    plan = targets.make_plan("xdc_same", "audio")
    assert plan.encoders == {"audio": "audio", "audio_2": "audio"}
    assert plan.heads == {"audio": ("audio_2",), "audio_2": ("audio",)}
    assert plan.modalities == ("audio",)


def test_unknown_names_are_errors_that_list_the_known_ones():
    with pytest.raises(UserError, match="'xcd'.*sdc, mdc, cdc, xdc"):
        targets.make_plan("xcd")
    with pytest.raises(UserError, match="same_modality is 'text'"):
        targets.make_plan("xdc_same", "text")
