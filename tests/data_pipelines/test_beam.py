import os
import sys

import numpy as np
import pytest

from data_pipelines import media, prepare, sources
from tests.data_pipelines.test_prepare import contents
from tests.media_files import numbered_pictures, write_media
from xdc_jax.errors import UserError

SETTINGS = media.Settings(segment_s=1.0)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Ten files with pictures and sound, two of them broken, in two splits."""
    folder = tmp_path_factory.mktemp("media")
    lines = ["path,split,label"]
    for i in range(10):
        samples = np.random.default_rng(i).normal(0, 1000, 16_000).astype(np.int16)
        path = write_media(
            folder / f"{i}.mkv",
            pictures=numbered_pictures(5 + 3 * i),
            fps=10,
            samples=samples,
        )
        lines.append(f"{path.name},{'test' if i % 4 == 0 else 'train'},{'ab'[i % 2]}")
        if i in (3, 7):
            path.write_bytes(path.read_bytes()[:100])
    (folder / "m.csv").write_text("\n".join(lines) + "\n")
    return sources.manifest_source(folder / "m.csv")


def run(source, out_dir, **options):
    prepare.prepare(
        source,
        out_dir,
        SETTINGS,
        num_workers=2,
        max_rejected=0.5,
        rows_per_shard=2,
        **options,
    )
    return contents(out_dir)


def test_the_direct_runner_writes_the_bytes_of_the_local_pool(source, tmp_path):
    pytest.importorskip("apache_beam", reason="needs pip install 'xdc-jax[beam]'")
    local = run(source, tmp_path / "local")
    beamed = run(source, tmp_path / "beam", runner="DirectRunner")
    assert len([name for name in local if "tfrecord-" in name]) == 6
    assert beamed == local


def test_a_runner_goes_on_where_the_local_pool_was_stopped(
    source, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("apache_beam", reason="needs pip install 'xdc-jax[beam]'")
    whole = run(source, tmp_path / "local")
    out_dir = tmp_path / "data"

    def some(parts_to_make, *args):
        return original(parts_to_make[:2], *args)

    original = prepare.parts.write
    monkeypatch.setattr(prepare.parts, "write", some)
    with pytest.raises(AttributeError):  # the reports of the others are missing
        run(source, out_dir)
    monkeypatch.undo()
    assert len(list((out_dir / "parts").glob("*.json"))) == 2
    assert run(source, out_dir, runner="DirectRunner") == whole
    assert "going on; 2 of 6 shards are there" in capsys.readouterr().out


def test_without_beam_the_error_says_what_to_install(source, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(UserError, match=r"pip install 'xdc-jax\[beam\]'"):
        run(source, tmp_path / "data", runner="DirectRunner")
    assert "prepared.json" not in os.listdir(tmp_path / "data")
