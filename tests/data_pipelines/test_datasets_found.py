"""Data sets that lie in a folder: what holds for all; class folders and GRID words."""

import collections
import os
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines import datasets, media
from data_pipelines.datasets import youtube
from data_pipelines.manifest import MEDIA_SUFFIXES
from tests.dataset_trees import TREES, build, grid_tree, plant, refuses, told


def test_class_folders_with_and_without_splits(tmp_path):
    plant(tmp_path / "a", "train/cat/1.MP4", "Validation/cat/deep/2.wav")
    plant(tmp_path / "a", "test/dog/3.mkv", "test/4.mkv", "notes.txt", ".x/cat/5.mp4")
    result = build("class_folders", tmp_path / "a")
    assert told(result, "path", "label", "split") == [
        ("Validation/cat/deep/2.wav", "cat", "val"),
        ("test/dog/3.mkv", "dog", "test"),
        ("train/cat/1.MP4", "cat", "train"),
    ]
    assert result.problems == (
        f"{tmp_path / 'a/test/4.mkv'}: found a file, expected it in a class folder",
    )
    plant(tmp_path / "b", "train/1.mp4", "tram/deep/2.mp4", "3.mp4")
    result = build("class_folders", tmp_path / "b")
    assert told(result, "path", "label", "split") == [
        ("train/1.mp4", "train", "train"),
        ("tram/deep/2.mp4", "tram", "train"),
    ]
    assert len(result.problems) == 1
    plant(tmp_path / "c", "1.mp4")
    refuses("class_folders", tmp_path / "c", "1 problems, the first .*/1.mp4: found a")


def test_grid_words(tmp_path):
    grid_tree(tmp_path)
    result = build("grid_words", tmp_path)
    assert told(result, "path", "label", "split") == [
        ("clips/a_0_bin.mkv", "bin", "train"),
        ("clips/b_1_blue.mkv", "blue", "test"),
    ]
    assert result.missing == ("clips/c_2_at.mkv",)
    path = tmp_path / "manifest.csv"
    expected = "expected a word, and train or test"
    assert result.problems == (
        f"{path}, line 5: found label 'bin' and split 'all', {expected}",
        f"{path}, line 6: found label '' and split 'train', {expected}",
    )
    path.write_text("path,label\n")
    refuses(
        "grid_words", tmp_path, "line 1: found the header 'path,label', expected the"
    )
    path.unlink()
    refuses("grid_words", tmp_path, "found no manifest.csv; expected GRID words")


def test_the_real_grid_words(real_data):
    result = build("grid_words", real_data / "grid_words")
    splits = collections.Counter(row.split for row in result.rows)
    assert splits == {"train": 2_400, "test": 600}
    assert len(result.class_names) == 18
    assert (result.missing, result.problems) == ((), ())
    row = next(row for row in result.rows if row.path == "clips/bbaf2n_1_blue.mkv")
    assert (row.label, row.split) == ("blue", "train")
    (segment,) = media.decode(row.location, row.start_s, row.end_s, media.Settings())
    assert len(segment.frames) == 16


HEADER_CELLS = {"youtube_id", "filename", "file", "mid"}


@pytest.mark.parametrize("name", sorted(datasets.FOUND))
def test_rows_do_not_depend_on_the_order_of_folders(tmp_path, monkeypatch, name):
    """Nor on the way the folder is given; every location is absolute."""
    TREES[name](tmp_path)
    expected = build(name, tmp_path)
    walk = os.walk

    def backwards(*args, **kwargs):
        for parent, folders, names in walk(*args, **kwargs):
            folders.sort(reverse=True)
            yield parent, folders, sorted(names, reverse=True)

    monkeypatch.setattr(os, "walk", backwards)
    monkeypatch.chdir(tmp_path.parent)
    found = build(name, type(tmp_path)(tmp_path.name))
    assert found.rows == expected.rows
    assert (found.class_names, found.missing) == (
        expected.class_names,
        expected.missing,
    )
    assert [row.order for row in found.rows] == sorted({r.order for r in found.rows})
    assert {row.label for row in found.rows} <= {"", *found.class_names}
    for row in found.rows:
        assert os.path.isabs(row.location)
        assert os.path.samefile(row.location, tmp_path / row.path)


@pytest.mark.parametrize("name", sorted(datasets.FOUND))
def test_rows_do_not_depend_on_the_order_of_lines(tmp_path, name):
    TREES[name](tmp_path)
    expected = build(name, tmp_path)
    for path in tmp_path.rglob("*.[ct][sx][vt]"):
        lines = path.read_text().splitlines()
        num_headers = len(HEADER_CELLS & set(lines[0].split(",")))
        lines[num_headers:] = reversed(lines[num_headers:])
        path.write_text("\n".join(lines))
    found = build(name, tmp_path)
    assert found.rows == expected.rows
    assert (found.class_names, found.missing) == (
        expected.class_names,
        expected.missing,
    )


@pytest.mark.parametrize("name", sorted(datasets.FOUND))
def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch, name):
    TREES[name](tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir()
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path) == str(closed):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    refuses(name, tmp_path, f"{closed}: cannot list the folder .Permission denied.")


youtube_ids = st.text(string.ascii_letters + string.digits + "-_", min_size=11).map(
    lambda text: text[:11]
)
seconds = st.integers(0, 10**6)


@given(
    youtube_ids,
    st.sampled_from(("", "Y")),
    st.one_of(
        st.just(""),
        seconds.map(lambda s: f"_{s:06d}"),
        st.tuples(seconds, seconds).map(lambda s: f"_{s[0]}_{s[1]}.5"),
    ),
    st.sampled_from(sorted(MEDIA_SUFFIXES)),
)
def test_a_name_reads_in_one_way(youtube_id, prefix, times, suffix):
    path = f"some_folder.d/{prefix}{youtube_id}{times}{suffix}"
    start = float(times.split("_")[1]) if times else None
    assert youtube.by_id([path]) == {
        youtube_id: [youtube.Named(path, start, bool(prefix or times))]
    }
