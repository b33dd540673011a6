"""ESC-50, ESC-10, DCASE 2014: small trees in the layout of each."""

import collections

import pytest

from data_pipelines import media
from data_pipelines.datasets import dcase2014
from tests.dataset_trees import (
    ESC,
    build,
    dcase_tree,
    esc_tree,
    plant,
    refuses,
    told,
)


def test_esc50_has_folds(tmp_path):
    esc_tree(tmp_path)
    result = build("esc50", tmp_path)
    assert told(result, "path", "label", "split", "fold") == [
        ("audio/1-100032-A-0.wav", "dog", "train", 1),
        ("audio/2-1-A-1.flac", "rooster", "train", 2),
        ("audio/5-2-B-36.WAV", "vacuum_cleaner", "train", 5),
    ]
    assert result.missing == ("audio/3-3-A-1.wav",)
    assert result.problems == ()
    assert result.class_names == ("dog", "rooster", "vacuum_cleaner")


@pytest.mark.parametrize("name", ["esc50", "esc10"])
def test_esc10_is_in_either_list(tmp_path, name):
    esc_tree(tmp_path, name)
    result = build("esc10", tmp_path)
    assert told(result, "label", "fold") == [("dog", 1), ("rooster", 2)]
    assert result.class_names == ("dog", "rooster")
    assert result.missing == ("audio/3-3-A-1.wav",)


def test_esc50_goes_on_after_bad_rows_and_names_missing_lists(tmp_path):
    esc_tree(tmp_path)
    path = tmp_path / "meta" / "esc50.csv"
    bad = (
        "1-100032-A-0.wav,6,0,dog,True,100032,A",
        "1-100032-A-0.wav,1,0,,True,100032,A",
        "1-100032-A-0.wav,1,0,dog,yes,100032,A",
        "1-100032-A-0.wav,1,0,dog",
    )
    path.write_text(ESC + "\n".join((*bad, "1-100032-A-0.wav,1,0,dog,True,100032,A")))
    result = build("esc50", tmp_path)
    assert told(result, "label") == [("dog",)]
    expected = "a fold from 1 to 5, a category, and True or False for esc10"
    assert result.problems == (
        *(
            f"{path}, line {number}: found {text!r}, expected {expected}"
            for number, text in enumerate(bad[:3], 2)
        ),
        f"{path}, line 5: found {bad[3]!r}, expected 7 cells",
    )
    path.write_text("file,fold\nx,1\n")
    refuses(
        "esc50", tmp_path, "esc50.csv, line 1: found the header 'file,fold', expect"
    )
    path.rename(path.with_name("esc10.csv"))
    refuses("esc50", tmp_path, "found no meta/esc50.csv;")
    path.with_name("esc10.csv").unlink()
    refuses("esc10", tmp_path, "found no meta/esc10.csv or meta/esc50.csv;")


def test_the_real_esc10(real_data):
    result = build("esc10", real_data / "esc10")
    assert collections.Counter(row.fold for row in result.rows) == dict.fromkeys(
        range(1, 6), 80
    )
    assert collections.Counter(row.label for row in result.rows) == dict.fromkeys(
        result.class_names, 40
    )
    assert len(result.class_names) == 10
    assert (result.missing, result.problems) == ((), ())
    row = next(row for row in result.rows if row.path == "audio/1-100032-A-0.flac")
    assert (row.label, row.fold, row.split) == ("dog", 1, "train")
    (segment,) = media.decode(row.location, row.start_s, row.end_s, media.Settings())
    assert len(segment.audio) > 16_000


@pytest.mark.parametrize(
    "folders",
    [
        ("scenes_stereo", "scenes_stereo_testset"),
        ("scenes_stereo/scenes_stereo", "scenes_stereo_testset/scenes_stereo_testset"),
    ],
)
def test_dcase2014_is_named_by_scene_in_two_sets(tmp_path, folders):
    dcase_tree(tmp_path, folders)
    result = build("dcase2014", tmp_path)
    counts = collections.Counter(told(result, "split", "label"))
    assert counts == {
        (split, scene): 10 for split in ("train", "test") for scene in dcase2014.SCENES
    }
    for row in result.rows:
        assert (row.split == "test") == row.path.startswith("scenes_stereo_testset/")
        assert row.path.rpartition("/")[2][:-6] == row.label
    assert result.class_names == dcase2014.SCENES
    assert (result.missing, result.problems) == ((), ())


def test_dcase2014_counts_recordings_and_knows_renamed_ones(tmp_path):
    dcase_tree(tmp_path)
    (tmp_path / "scenes_stereo" / "tube03.wav").unlink()
    plant(tmp_path, "notes.wav", "scenes_stereo/tube3.wav")
    names = tmp_path / "scenes_stereo_testset"
    for path in names.iterdir():
        path.rename(path.with_name(f"test_{path.name}".upper()))
    names.rename(tmp_path / "audio")
    result = build("dcase2014", tmp_path)
    assert collections.Counter(told(result, "split")) == {
        ("train",): 99,
        ("test",): 100,
    }
    assert result.problems == (
        f"{tmp_path}: found 9 recordings of tube in train, expected 10",
    )


def test_dcase2014_needs_recordings(tmp_path):
    plant(tmp_path, "scenes_stereo/beach01.wav")
    refuses(
        "dcase2014", tmp_path, r"no file of the data set \(none\); expected DCASE sc"
    )
