import importlib
import re
import shlex
from pathlib import Path

import pytest

from xdc_jax.paper import commands, render
from xdc_jax.paper.comparison import compare
from xdc_jax.paper.published import (
    GALLERY_CLUSTERS,
    IMAGENET,
    OFFICIAL_PARTS,
    RELEASED,
    SCRATCH,
    TABLES,
    VIDEO,
    Trust,
)
from xdc_jax.weights.published import HASH_PREFIXES

ROOT = Path(__file__).parent.parent
ROWS = [row for table in TABLES for row in table.rows]
PRETRAININGS = sorted({row.pretraining for row in ROWS if row.pretraining})
CELLS = [
    (row, column)
    for table in TABLES
    for row in table.rows
    for column in table.columns
    if commands.can_run(row, column)
]


def test_every_number_has_a_trust_and_is_a_percentage():
    for row in ROWS:
        for number in filter(None, row.published):
            assert isinstance(number.trust, Trust)
            assert 0 < number.percent < 100
            assert ("(" in str(number)) == (number.trust != Trust.VERIFIED)


def test_only_the_state_of_the_art_of_the_authors_readme_is_verified():
    verified = {
        (table.name, row.name): " ".join(n.text for n in row.published if n)
        for table in TABLES
        for row in table.rows
        for number in filter(None, row.published)
        if number.trust == Trust.VERIFIED
    }
    assert verified == {
        ("video", "XDC, IG-Kinetics"): "95.5 68.9",
        ("video", "XDC, IG-Random"): "94.6 66.5",
        ("video", "XDC, AudioSet"): "93.0 63.7",
        ("video", "Supervised, Kinetics"): "94.2 65.1",
        ("video", "Supervised, ImageNet"): "84.0 48.1",
        ("audio", "Human"): "81.3",
    }


def test_every_row_has_a_number_or_none_for_every_column():
    for table in TABLES:
        assert all(len(row.published) == len(table.columns) for row in table.rows)
        assert all(column.data in OFFICIAL_PARTS for column in table.columns)


def test_tables_agree_where_they_have_the_same_cell():
    seen = {}
    for table in TABLES:
        for row in table.rows:
            for column, number in zip(table.columns, row.published, strict=True):
                key = (row.name.partition(" (")[0], row.pretraining, row.k)
                key += (column.data, column.protocol, column.num_frames)
                if number and row.pretraining != SCRATCH and "," in row.name:
                    assert seen.setdefault(key, number) == number


@pytest.mark.parametrize("name", PRETRAININGS)
def test_every_pretraining_is_a_config_of_that_name_or_known_otherwise(name):
    if name in (SCRATCH, IMAGENET):
        assert name == SCRATCH or name in HASH_PREFIXES
        return
    config = importlib.import_module(f"configs.paper.{name}").get_config()
    assert config.name == name
    clusters = (config.clustering.k_video, config.clustering.k_audio)
    assert clusters == GALLERY_CLUSTERS


def test_every_config_is_a_row():
    files = {path.stem for path in (ROOT / "configs/paper").glob("*.py")}
    assert files - {"__init__", "shared"} == set(PRETRAININGS) - {SCRATCH, IMAGENET}


def test_released_weights_fill_the_state_of_the_art():
    assert {*RELEASED.values(), IMAGENET} == set(HASH_PREFIXES)
    assert {row.released for row in VIDEO.rows} == {None, *RELEASED.values()}


@pytest.mark.parametrize(("row", "column"), CELLS)
def test_the_commands_of_a_cell_name_configs_that_make_it(row, column):
    name, weights = commands.name(row), commands.weights(row)
    if command := commands.pretrain(row):
        config = read_config(command)
        assert config.name == row.pretraining
        if row.k:
            assert config.clustering.k_video == config.clustering.k_audio == row.k
        assert f"--workdir={weights}" in command
    command = commands.measure(column, name, weights)
    if column.protocol in ("full", "fc_only"):
        config = read_config(command)
        assert config.train == column.protocol
        assert config.modality == column.modality
        if column.modality == "video":
            assert config.clip.num_frames == column.num_frames
            assert config.clip.crop_size == column.crop_size
    else:
        assert command.startswith("xdc extract")
        assert "xdc evaluate" in command


def read_config(command):
    (flag,) = [word for word in shlex.split(command) if word.startswith("--config=")]
    path, _, arg = flag.removeprefix("--config=").partition(":")
    assert (ROOT / path).is_file()
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    return module.get_config(arg)


def test_commands_in_the_printed_tables_are_those_of_the_cells():
    tables, others = compare({})
    printed = render.markdown(tables, others, [])
    variables = {}
    for row, column in CELLS:
        if command := commands.pretrain(row):
            assert command in printed
        variables[commands.measure(column, "${NAME}", "${WEIGHTS}")] = True
    assert all(command in printed for command in variables)


def test_every_folder_that_is_read_is_prepared():
    prepared = set(re.findall(r"--out=(\S+)", " ".join(commands.PREPARE)))
    read = set()
    for row, column in CELLS:
        for command in (commands.pretrain(row), commands.measure(column, "n", "w")):
            read |= set(re.findall(r"--data=(\S+)", command or ""))
    assert read == prepared


@pytest.mark.parametrize("data", OFFICIAL_PARTS)
def test_data_sets_are_known_to_prepare(data):
    datasets = pytest.importorskip("data_pipelines.datasets")
    assert data in datasets.FOUND
