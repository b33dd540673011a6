"""UCF101, HMDB51, THUMOS14: small trees in the layout of each."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.datasets import thumos14
from tests.dataset_trees import (
    ODD,
    build,
    hmdb_tree,
    plant,
    refuses,
    thumos_tree,
    told,
    ucf_tree,
    write,
)

UCF_CLASSES = ("ApplyEyeMakeup", "HandstandPushups", "YoYo")


def test_ucf101_has_three_splits_and_mixed_case(tmp_path):
    ucf_tree(tmp_path)
    result = build("ucf101", tmp_path)
    makeup, pushups = UCF_CLASSES[:2]
    handstand = "v_HandStandPushups_g01_c01.avi"
    assert told(result, "path", "label", "partitions") == [
        (f"UCF-101/{makeup}/v_{makeup}_g01_c01.avi", makeup, "test/train/-"),
        (f"UCF-101/{makeup}/v_{makeup}_g08_c01.AVI", makeup, "train/test/-"),
        (f"UCF-101/{pushups}/{handstand}", pushups, "train/test/test"),
        ("UCF-101/YoYo/v_YoYo_g01_c01.avi", "YoYo", "-/-/train"),
    ]
    assert {row.split for row in result.rows} == {"videos"}
    assert result.class_names == UCF_CLASSES
    assert result.missing == ("UCF-101/YoYo/v_YoYo_g25_c01.avi",)
    assert result.problems == ()


def test_ucf101_goes_on_after_bad_lines(tmp_path):
    ucf_tree(tmp_path)
    lists = tmp_path / "ucfTrainTestlist"
    write(
        lists,
        classInd_txt="1 ApplyEyeMakeup\n2\n2 HandstandPushups\n3 YoYo\n",
        trainlist03_txt="YoYo/v_YoYo_g01_c01.avi 3\n"
        "Yoyoing/v_YoYo_g01_c01.avi 3\n"
        "YoYo/v_YoYo_g01_c01.avi 1\n"
        "YoYo/v_YoYo_g01_c01.avi 99\n",
        testlist03_txt="YoYo/v_YoYo_g01_c01.avi\n",
    )
    result = build("ucf101", tmp_path)
    assert len(result.rows) == 4
    assert told(result, "partitions")[-1] == ("-/-/train",)
    expected = "expected Class/file, and the class or its number as in classInd.txt"
    name = "YoYo/v_YoYo_g01_c01.avi"
    assert result.problems == (
        f"{lists / 'classInd.txt'}, line 2: found '2', expected number and class",
        f"{lists / 'trainlist03.txt'}, line 2: found 'Yoyoing/v_YoYo_g01_c01.avi 3', "
        + expected,
        f"{lists / 'trainlist03.txt'}, line 3: found '{name} 1', {expected}",
        f"{lists / 'trainlist03.txt'}, line 4: found '{name} 99', {expected}",
        f"{lists / 'testlist03.txt'}, line 1: found UCF-101/{name} in test and in "
        "train, expected it in one part of split 3",
    )


@pytest.mark.parametrize("name", ["classInd", "trainlist02", "testlist03"])
def test_ucf101_names_the_list_that_is_missing_or_empty(tmp_path, name):
    ucf_tree(tmp_path)
    path = tmp_path / "ucfTrainTestlist" / f"{name}.txt"
    path.write_text("")
    refuses("ucf101", tmp_path, f"{path}: found an empty list")
    path.unlink()
    refuses("ucf101", tmp_path, f"found no {name}.txt; expected UCF101: UCF-101/ and")


def test_hmdb51_has_three_splits_and_odd_names(tmp_path):
    hmdb_tree(tmp_path)
    result = build("hmdb51", tmp_path)
    assert sorted(told(result, "path", "label", "split", "partitions")) == sorted(
        [
            (
                "Brush_Hair/April_brush_hair_u_0.AVI",
                "brush_hair",
                "videos",
                "train/test/-",
            ),
            (f"clap/{ODD[0]}.avi", "clap", "videos", "train/test/-"),
            (f"clap/{ODD[1]}.avi", "clap", "videos", "test/train/-"),
            (f"clap/{ODD[2]}.avi", "clap", "videos", "-/-/train"),
        ]
    )
    assert all(os.path.isfile(row.location) for row in result.rows)
    assert result.class_names == ("brush_hair", "clap")
    assert result.missing == (f"clap/{ODD[3]}.avi",)
    assert result.problems == ()


def test_hmdb51_goes_on_after_bad_lines(tmp_path):
    hmdb_tree(tmp_path)
    path = tmp_path / "testTrainMulti_7030_splits" / "clap_test_split3.txt"
    path.write_text(f"{ODD[0]}.avi 3\n1\n{ODD[1]}.avi 1\n{ODD[1]}.avi 2\n")
    result = build("hmdb51", tmp_path)
    assert dict(told(result, "path", "partitions"))[f"clap/{ODD[1]}.avi"] == (
        "test/train/train"
    )
    assert result.problems == (
        f"{path}, line 1: found '{ODD[0]}.avi 3', expected name and 0, 1 or 2",
        f"{path}, line 2: found '1', expected name and 0, 1 or 2",
        f"{path}, line 4: found clap/{ODD[1]}.avi in test and in train, expected it in "
        "one part of split 3",
    )


def test_hmdb51_tells_classes_apart_and_names_missing_lists(tmp_path):
    hmdb_tree(tmp_path)
    (tmp_path / "clap").rename(tmp_path / "wave")
    result = build("hmdb51", tmp_path)
    assert told(result, "label") == [("brush_hair",)]
    assert len(result.missing) == 4
    splits = tmp_path / "testTrainMulti_7030_splits"
    (splits / "clap_test_split2.txt").unlink()
    refuses("hmdb51", tmp_path, "found no clap_test_split2.txt; expected HMDB51")
    for path in splits.iterdir():
        path.unlink()
    refuses("hmdb51", tmp_path, "found no <class>_test_split1.txt")


def test_hmdb51_finds_names_that_are_not_utf8(tmp_path):
    name = b"caf\xe9_clap_0.avi"
    plant(tmp_path, os.fsdecode(b"clap/" + name))
    for n in (1, 2, 3):
        (tmp_path / f"clap_test_split{n}.txt").write_bytes(name + b" 1\n")
    (row,) = build("hmdb51", tmp_path).rows
    assert os.path.isfile(row.location)
    assert row.partitions == "train/train/train"


name_parts = st.text(
    st.sampled_from("aB#(;&![]*?.$%'\"é\u2028 "), min_size=1, max_size=9
)


@given(
    st.dictionaries(name_parts, st.tuples(*[st.sampled_from("012")] * 3), min_size=1)
)
def test_hmdb51_finds_every_name_that_a_file_can_have(tmp_path_factory, parts):
    # Names that differ in case alone are one clip, and lists strip outer blanks.
    parts = {f"x{name.casefold().strip()}_0": value for name, value in parts.items()}
    root = tmp_path_factory.mktemp("hmdb")
    plant(root, *(f"clap/{name}.avi" for name in parts))
    for n in (1, 2, 3):
        lines = "".join(f"{name}.avi {value[n - 1]}\n" for name, value in parts.items())
        write(root, **{f"clap_test_split{n}_txt": lines})
    result = build("hmdb51", root)
    words = {"0": "-", "1": "train", "2": "test"}
    assert dict(told(result, "path", "partitions")) == {
        f"clap/{name}.avi": "/".join(words[digit] for digit in value)
        for name, value in parts.items()
    }
    assert (result.missing, result.problems) == ((), ())


def test_thumos14_labels_videos_of_one_class(tmp_path):
    thumos_tree(tmp_path)
    thumos_tree(tmp_path, "test", "TH14_Temporal_Annotations_Test/annotations")
    result = build("thumos14", tmp_path)
    fields = ("path", "label", "split", "start_s", "end_s")
    assert told(result, *fields) == [
        ("test/video_test_0000001.mp4", "GolfSwing", "test", 0, None),
        ("test/video_test_0000002.MP4", "", "test", 0, None),
        ("validation/video_validation_0000001.mp4", "GolfSwing", "val", 0, None),
        ("validation/video_validation_0000002.MP4", "", "val", 0, None),
    ]
    assert result.class_names == tuple(sorted(thumos14.CLASSES))
    assert len(result.class_names) == 20
    assert result.missing == (
        "test/video_test_0000009.mp4",
        "validation/video_validation_0000009.mp4",
    )
    assert result.problems == ()


def test_thumos14_goes_on_after_bad_lines_and_names_missing_lists(tmp_path):
    thumos_tree(tmp_path)
    folder = tmp_path / "TH14_Temporal_annotations_validation" / "annotation"
    bad = (
        "video_test_0000001 1 2",
        "video_validation_0000001 2 2",
        "video_validation_0000001 x 2",
        "video_validation_0000001 1",
        "video_validation_x 1 2",
    )
    path = folder / "GolfSwing_val.txt"
    path.write_text("\n".join((*bad, "video_validation_0000001 1 2")))
    result = build("thumos14", tmp_path)
    assert told(result, "label") == [("GolfSwing",), ("",)]
    assert result.problems == tuple(
        f"{path}, line {number}: found {text!r}, expected video_validation_NUMBER, "
        "start_s, end_s"
        for number, text in enumerate(bad, 1)
    )
    path.unlink()
    refuses("thumos14", tmp_path, "found no GolfSwing_val.txt; expected THUMOS14")
    for path in folder.iterdir():
        path.unlink()
    refuses("thumos14", tmp_path, "found no <Class>_val.txt or <Class>_test.txt")
