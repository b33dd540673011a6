"""Kinetics, VGG-Sound, AudioSet: small trees in the layout of each."""

import collections
import os
import random

import pytest

from data_pipelines.datasets import audioset
from tests.dataset_trees import (
    CLASSES,
    IDS,
    KINETICS,
    build,
    kinetics_tree,
    plant,
    refuses,
    segment,
    told,
    unbalanced_tree,
    write,
)
from xdc_jax.errors import UserError


@pytest.mark.parametrize("name", ["kinetics400", "kinetics600", "kinetics700"])
def test_kinetics_takes_every_layout_of_lists_and_clips(tmp_path, name):
    kinetics_tree(tmp_path)
    result = build(name, tmp_path)
    drumming = "air drumming"
    assert told(result, "path", "label", "split", "start_s", "end_s") == [
        (f"test/{IDS[3]}_000100_000110.mp4", "", "test", 0, None),
        (f"train/{IDS[1]}_12_22.MKV", "yoga", "train", 0, None),
        (f"train/{drumming}/{IDS[0]}_000012_000022.mp4", drumming, "train", 0, None),
        (f"val/{IDS[2]}_000000_000010.webm", "yoga", "val", 0, None),
    ]
    assert all(os.path.isfile(row.location) for row in result.rows)
    assert result.class_names == ("air drumming", "yoga")
    assert result.missing == (f"train/yoga/{IDS[4]}_000012_000022.mp4",)
    assert result.problems == ()


def test_kinetics_goes_on_after_bad_rows(tmp_path):
    kinetics_tree(tmp_path)
    write(
        tmp_path,
        annotations__train_csv=KINETICS
        + f"yoga,{IDS[1]},12,22,train,0\n"
        + "yoga,too_short,12,22,train,0\n"
        + f"yoga,{IDS[0]},12,12,train,0\n"
        + f"yoga,{IDS[0]},1x,12,train,0\n"
        + f",{IDS[0]},12,22,train,0\n"
        + f"yoga,{IDS[0]},12\n"
        + f'yoga,{IDS[0]},12,22,train,"0\n'
        + "\n"
        + f"yoga,{IDS[1]},12,22,train,0\n"
        + f"yoga,{IDS[0]},12,22,train,0\n",
    )
    result = build("kinetics400", tmp_path)
    splits = collections.Counter(row.split for row in result.rows)
    assert splits == {"train": 2, "val": 1, "test": 1}
    path = tmp_path / "annotations" / "train.csv"
    expected = (
        "line 3: found 'too_short', expected a YouTube id",
        "line 4: found '12' to '12', expected two whole seconds, the later second",
        "line 5: found '1x' to '12', expected two whole seconds, the later second",
        "line 6: found no label, expected one",
        f"line 7: found 'yoga,{IDS[0]},12', expected 6 cells",
        f"line 8: found 'yoga,{IDS[0]},12,22,train,\"0', expected 6 cells",
        f"line 10: found train/{IDS[1]}_12_22.MKV as in {path}, line 2, expected each "
        "file once",
    )
    assert result.problems == tuple(f"{path}, {text}" for text in expected)


def test_kinetics_ids_are_told_apart_by_case_and_clips_by_their_start(tmp_path):
    plant(tmp_path, "AAAAAAAAAAA_000001_000011.mp4", "aaaaaaaaaaa_000002_000012.mp4")
    write(
        tmp_path,
        train_csv=KINETICS
        + "a,AAAAAAAAAAA,1,11,train,0\n"
        + "b,aaaaaaaaaaa,1,11,train,0\n"
        + "c,aaaaaaaaaaa,2,12,train,0\n",
    )
    result = build("kinetics400", tmp_path)
    assert told(result, "path", "label") == [
        ("AAAAAAAAAAA_000001_000011.mp4", "a"),
        ("aaaaaaaaaaa_000002_000012.mp4", "c"),
    ]
    assert result.missing == ("train/b/aaaaaaaaaaa_000001_000011.mp4",)
    assert result.class_names == ("a", "b", "c")


def test_kinetics_prefers_mended_clips_and_pictures(tmp_path):
    name = f"{IDS[0]}_000001_000011"
    write(tmp_path, train_csv=KINETICS + f"a,{IDS[0]},1,11,train,0\n")
    for path in (f"audio/{name}.flac", f"video/{name}.mp4", f"z/{name}.mp4"):
        plant(tmp_path, path)
    assert told(build("kinetics400", tmp_path), "path") == [(f"video/{name}.mp4",)]
    mended = f"replacement/replacement_for_corrupted_k400/{name}.mp4"
    plant(tmp_path, mended)
    assert told(build("kinetics400", tmp_path), "path") == [(mended,)]


def test_kinetics_refuses_what_is_not_one_of_it(tmp_path):
    refuses("kinetics400", tmp_path, "found no train.csv, val.csv or test.csv")
    row = f"a,{IDS[0]},1,11,train,0\n"
    write(tmp_path, train_csv=KINETICS + row)
    refuses(
        "kinetics400",
        tmp_path,
        rf"no file of the data set \(1 missing files, the first train/a/{IDS[0]}_",
    )
    plant(tmp_path, f"{IDS[0]}_1_11.mp4")
    assert len(build("kinetics400", tmp_path).rows) == 1
    many = "".join(f"class {i},{IDS[0]},{i},999,train,0\n" for i in range(401))
    write(tmp_path, train_csv=KINETICS + many)
    refuses("kinetics400", tmp_path, "train.csv: found 401 classes, .*most 400")
    assert len(build("kinetics600", tmp_path).rows) == 1
    write(tmp_path, **{"kinetics-400_train_csv": KINETICS + row})
    refuses("kinetics400", tmp_path, "both kinetics-400_train.csv and train.csv")
    (tmp_path / "kinetics-400_train.csv").unlink()
    write(tmp_path, train_csv="path/to/video_1 1\n")
    refuses("kinetics400", tmp_path, "line 1: found the header 'path/to/video_1 1'")
    write(tmp_path, train_csv=" \n")
    refuses("kinetics400", tmp_path, "train.csv: found an empty list")


def test_vggsound(tmp_path):
    plant(
        tmp_path,
        f"video/{IDS[0]}_000030.mp4",
        f"{IDS[1]}_30.MP4",
        f"{IDS[2]}_000030_000040.mp4",
    )
    bad = (
        f"{IDS[0]},30,dog barking\n",
        f"{IDS[0]},30,dog barking,val\n",
        f"{IDS[0]},thirty,dog barking,train\n",
        f"{IDS[0]},30,,train\n",
        "short,30,dog barking,train\n",
    )
    write(
        tmp_path,
        vggsound_csv=f'{IDS[0]},30,"dog barking, howling",train\n'
        f"{IDS[1]},30,people eating,test\n"
        f"{IDS[2]},30,people eating,train\n"
        f"{IDS[2]},40,wind,train\n" + "".join(bad),
    )
    result = build("vggsound", tmp_path)
    assert told(result, "path", "label", "split") == [
        (f"{IDS[2]}_000030_000040.mp4", "people eating", "train"),
        (f"{IDS[1]}_30.MP4", "people eating", "test"),
        (f"video/{IDS[0]}_000030.mp4", "dog barking, howling", "train"),
    ]
    assert result.class_names == ("dog barking, howling", "people eating", "wind")
    assert result.missing == (f"{IDS[2]}_000040.mp4",)
    assert result.problems == tuple(
        f"{tmp_path / 'vggsound.csv'}, line {line}: found {text.strip()!r}, expected "
        'youtube_id,start_s,"label",train|test'
        for line, text in enumerate(bad, 5)
    )
    (tmp_path / "vggsound.csv").unlink()
    refuses("vggsound", tmp_path, "found no vggsound.csv")


COMMENTS = "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=2\n"


def test_audioset_has_three_lists_and_two_splits(tmp_path):
    write(
        tmp_path,
        class_labels_indices_csv=CLASSES,
        balanced_train_segments_csv=COMMENTS + segment(IDS[0]),
        csv__unbalanced_train_segments_csv=COMMENTS
        + segment(IDS[1], mids="/m/09x0r,/t/dd00088")
        + segment(IDS[4]),
        eval_segments_csv=COMMENTS + segment(IDS[2], mids="/t/dd00088"),
    )
    plant(tmp_path, *(f"clips/{name}_30.mp4" for name in IDS[:3]))
    result = build("audioset", tmp_path)
    assert sorted(told(result, "path", "label", "split")) == [
        (f"clips/{IDS[0]}_30.mp4", "Speech", "train"),
        (f"clips/{IDS[2]}_30.mp4", "Gush, spurt", "test"),
        (f"clips/{IDS[1]}_30.mp4", "", "train"),
    ]
    assert result.class_names == ("Gush, spurt", "Speech")
    assert result.missing == (f"unbalanced_train_segments/{IDS[4]}_30_40.mp4",)
    assert result.problems == ()


@pytest.mark.parametrize(
    ("name", "interval"),
    [
        ("{}.mp4", (30, 40)),
        ("Y{}.wav", (0, None)),
        ("{}_30.mp4", (0, None)),
        ("{}_000030.mkv", (0, None)),
        ("{}_30_40.mp4", (0, None)),
        ("{}_30.0_40.0.mp4", (0, None)),
        ("{}_30000_40000.flac", (0, None)),
        ("Y{}_30.000_40.000.wav", (0, None)),
        ("{}_31.mp4", None),
        ("{}.txt", None),
        ("X{}.mp4", None),
        ("{}-30.mp4", None),
    ],
)
@pytest.mark.parametrize("youtube_id", IDS)
def test_audioset_reads_names(tmp_path, name, interval, youtube_id):
    other = "another-one"
    plant(tmp_path, name.format(youtube_id), f"{other}_30.mp4")
    write(
        tmp_path,
        class_labels_indices_csv=CLASSES,
        eval_segments_csv=segment(youtube_id) + segment(other),
    )
    result = build("audioset", tmp_path)
    found = {row.path: (row.start_s, row.end_s) for row in result.rows}
    assert found.pop(f"{other}_30.mp4") == (0, None)
    assert found == ({} if interval is None else {name.format(youtube_id): interval})
    assert len(result.missing) == (interval is None)


def test_audioset_prefers_what_was_cut_out(tmp_path):
    names = [f"{IDS[0]}.mp4", f"Y{IDS[0]}.mp4", f"{IDS[0]}_7.mp4"]
    write(
        tmp_path,
        class_labels_indices_csv=CLASSES,
        eval_segments_csv=segment(IDS[0], "7.500", "17.5"),
    )
    plant(tmp_path, *names)
    assert told(build("audioset", tmp_path), "path", "start_s") == [(names[2], 0)]
    (tmp_path / names[2]).unlink()
    (tmp_path / names[1]).unlink()
    fields = ("path", "start_s", "end_s")
    assert told(build("audioset", tmp_path), *fields) == [(names[0], 7.5, 17.5)]


def test_audioset_takes_several_intervals_of_a_video(tmp_path):
    plant(tmp_path, f"{IDS[0]}.mp4")
    write(
        tmp_path,
        class_labels_indices_csv=CLASSES,
        eval_segments_csv=segment(IDS[0], "30", "40") + segment(IDS[0], "0", "10"),
    )
    result = build("audioset", tmp_path)
    assert told(result, "start_s", "end_s") == [(0, 10), (30, 40)]


def test_audioset_goes_on_after_bad_rows_and_knows_the_ontology(tmp_path):
    plant(tmp_path, f"{IDS[0]}.mp4")
    write(
        tmp_path,
        ontology_json='[{"id": "/m/09x0r", "name": "Speech", "restrictions": []}]',
        eval_segments_csv=COMMENTS
        + segment(IDS[0], mids="/m/09x0r,/m/none")
        + segment("short")
        + segment(IDS[0], "40", "30")
        + f"{IDS[0]}, 30, 40, /m/09x0r,/m/09x0r\n"
        + segment(IDS[0]),
    )
    result = build("audioset", tmp_path)
    assert told(result, "label") == [("Speech",)]
    found = [text.split(": found ")[0] for text in result.problems]
    path = tmp_path / "eval_segments.csv"
    assert found == [f"{path}, line {line}" for line in (3, 4, 5, 6)]
    assert "'/m/09x0r,/m/none', expected mids of the list" in result.problems[0]
    assert '11-character YouTube id, start_s, end_s, "mid,mid,' in result.problems[1]
    write(tmp_path, ontology_json="{}")
    assert "expected mids" in "".join(error_of_audioset(tmp_path))
    write(tmp_path, ontology_json='["x"]')
    refuses("audioset", tmp_path, "ontology.json: found no AudioSet ontology")
    (tmp_path / "ontology.json").unlink()
    refuses("audioset", tmp_path, "no class_labels_indices.csv or ontology.json")
    (tmp_path / "eval_segments.csv").unlink()
    refuses("audioset", tmp_path, "no balanced_train_segments.csv or unbalanced")
    refuses("audioset240k", tmp_path, "found no unbalanced_train_segments.csv;")


def error_of_audioset(root):
    with pytest.raises(UserError) as error:
        build("audioset", root)
    return str(error.value)


def test_audioset240k_depends_on_the_seed_alone(tmp_path, monkeypatch):
    assert audioset.SUBSET_SIZE == 240_000
    monkeypatch.setattr(audioset, "SUBSET_SIZE", 20)
    unbalanced_tree(tmp_path / "a", random.Random(1))
    unbalanced_tree(tmp_path / "b", random.Random(2), folder="deep/er")

    def draw(tree, seed):
        result = build("audioset240k", tmp_path / tree, seed)
        assert {row.split for row in result.rows} == {"train"}
        assert (len(result.missing), result.problems) == (10, ())
        names = [row.path.rpartition("/")[2] for row in result.rows]
        assert len(set(names)) == 20
        return set(names)

    first = draw("a", 0)
    assert draw("a", 0) == draw("b", 0) == first
    assert draw("a", 1) != first
    # The same on every machine, and in every version.
    assert sorted(first)[:2] == ["-szJsEpdlHe_30.mp4", "2WAqGzYtEL6_30.mp4"]
    gone = min(first)
    (tmp_path / "a" / gone).unlink()
    result = build("audioset240k", tmp_path / "a", 0)
    left = {row.path for row in result.rows}
    assert len(left) == 20
    assert first - left == {gone}


def test_audioset240k_says_when_it_is_smaller(tmp_path):
    unbalanced_tree(tmp_path, random.Random(0))
    result = build("audioset240k", tmp_path)
    assert len(result.rows) == 50
    assert result.problems == (
        f"{tmp_path}: found 50 clips of unbalanced_train_segments.csv, expected at "
        "least 240000",
    )
