"""Data sets that lie in a folder: small trees in the layout of each."""

import collections
import os
import random
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_pipelines import datasets, media
from data_pipelines.datasets import audioset, dcase2014, thumos14, youtube
from data_pipelines.manifest import MEDIA_SUFFIXES
from xdc_jax.errors import UserError

IDS = ("--PJHxphWEs", "_dcb_Ju_QN_", "Yabcdefgh_1", "0000_000_12", "zzzzzzzzzzz")


def plant(root, *names):
    """Makes media files."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("media")


def write(root, **lists):
    """Writes lists; `folder__name_txt` is folder/name.txt."""
    for name, text in lists.items():
        path = root / re.sub(r"_(csv|txt|json)$", r".\1", name.replace("__", "/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def build(name, root, seed=0):
    return datasets.FOUND[name](root, seed)


def told(manifest, *fields):
    """These fields of every row."""
    return [tuple(getattr(row, field) for field in fields) for row in manifest.rows]


def refuses(name, root, message):
    with pytest.raises(UserError, match=message) as error:
        build(name, root)
    assert str(root) in str(error.value)


# --- Kinetics

KINETICS = "label,youtube_id,time_start,time_end,split,is_cc\n"


def kinetics_tree(root):
    plant(
        root,
        f"train/air drumming/{IDS[0]}_000012_000022.mp4",
        f"train/{IDS[1]}_12_22.MKV",
        f"val/{IDS[2]}_000000_000010.webm",
        f"test/{IDS[3]}_000100_000110.mp4",
        f"train/{IDS[4]}_000012_000022.mp4.part",
    )
    write(
        root,
        annotations__train_csv=KINETICS
        + f'"air drumming",{IDS[0]},12,22,train,0\n'
        + f"yoga,{IDS[1]},12.0,22.0,train,0\n"
        + f"yoga,{IDS[4]},12,22,train,0\n",
        validate_csv=f"\ufefflabel,youtube_id,time_start,time_end,split\n"
        f"yoga,{IDS[2]},0,10,validate\n",
        annotations__test_csv="youtube_id,time_start,time_end,split\n"
        f"{IDS[3]},100,110,test\n",
    )


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


# --- VGG-Sound


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


# --- AudioSet

COMMENTS = "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=2\n"
CLASSES = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/t/dd00088,"Gush, spurt"\n'


def segment(youtube_id, start="30.000", end="40.000", mids="/m/09x0r"):
    return f'{youtube_id}, {start}, {end}, "{mids}"\n'


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


def unbalanced_tree(root, order, folder="."):
    rng = random.Random(0)
    alphabet = string.ascii_letters + string.digits + "-_"
    ids = ["".join(rng.choices(alphabet, k=11)) for _ in range(60)]
    plant(root, *(f"{folder}/{youtube_id}_30.mp4" for youtube_id in ids[:50]))
    order.shuffle(ids)
    write(
        root,
        class_labels_indices_csv=CLASSES,
        unbalanced_train_segments_csv="".join(map(segment, ids)),
        eval_segments_csv=segment("another-one"),
    )
    plant(root, "another-one_30.mp4")


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


# --- UCF101

UCF_CLASSES = ("ApplyEyeMakeup", "HandstandPushups", "YoYo")


def ucf_tree(root):
    plant(
        root,
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi",
        "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.AVI",
        "UCF-101/HandstandPushups/v_HandStandPushups_g01_c01.avi",
        "UCF-101/YoYo/v_YoYo_g01_c01.avi",
    )
    lists = {
        "classInd": "1 ApplyEyeMakeup\r\n2 HandstandPushups\r\n3 YoYo\r\n",
        "trainlist01": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\n"
        "HandstandPushups/v_HandStandPushups_g01_c01.avi 2\n",
        "testlist01": "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi\n",
        "trainlist02": "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 1\n"
        "YoYo/v_YoYo_g25_c01.avi 3\n",
        "testlist02": "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi\n"
        "HandStandPushups/v_HandstandPushups_g01_c01.avi\n",
        "trainlist03": "YoYo/v_YoYo_g01_c01.avi 3\n",
        "testlist03": "HandstandPushups/v_HandStandPushups_g01_c01.avi\n",
    }
    write(root, **{f"ucfTrainTestlist__{k}_txt": text for k, text in lists.items()})


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


# --- HMDB51

ODD = (
    "#20_Rhythm_clap_u_nm_np1_fr_goo_0",
    "(HQ)_Rock_&_Roll_[1]_clap_u_cm_np1_fr_med_1",
    "What!_clap;_a*b_h_nm_np1_le_bad_2",
    "Veoh_2.0_clap_u_nm_np1_ba_goo_3",
)


def hmdb_tree(root):
    plant(
        root,
        *(f"clap/{name}.avi" for name in ODD[:3]),
        "Brush_Hair/April_brush_hair_u_0.AVI",
    )
    for n, parts in ((1, "1201"), (2, "2101"), (3, "0010")):
        lines = "".join(
            f"{name}.avi {part} \n" for name, part in zip(ODD, parts, strict=True)
        )
        write(
            root / "testTrainMulti_7030_splits",
            **{
                f"clap_test_split{n}_txt": lines,
                f"brush_hair_test_split{n}_txt": f"April_brush_hair_u_0.avi {n % 3}\n",
            },
        )


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


# --- ESC-50 and ESC-10

ESC = "filename,fold,target,category,esc10,src_file,take\n"


def esc_tree(root, name="esc50"):
    plant(root, "audio/1-100032-A-0.wav", "audio/2-1-A-1.flac", "audio/5-2-B-36.WAV")
    rows = (
        "1-100032-A-0.wav,1,0,dog,True,100032,A\n"
        "2-1-A-1.wav,2,1,rooster,True,1,A\n"
        "5-2-B-36.wav,5,36,vacuum_cleaner,False,2,B\n"
        "3-3-A-1.wav,3,1,rooster,True,3,A\n"
    )
    write(root, **{f"meta__{name}_csv": ESC + rows})


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


# --- DCASE


def dcase_tree(root, folders=("scenes_stereo", "scenes_stereo_testset")):
    for folder in folders:
        for scene in dcase2014.SCENES:
            plant(root / folder, *(f"{scene}{3 * n:02d}.wav" for n in range(1, 11)))


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


# --- THUMOS14


def thumos_tree(root, split="val", folder="TH14_Temporal_annotations_validation"):
    word = {"val": "validation", "test": "test"}[split]
    lines = {name: f"video_{word}_0000009  1.0 2.0\n" for name in thumos14.CLASSES}
    lines["GolfSwing"] += (
        f"video_{word}_0000001  72.8 76.4\nvideo_{word}_0000001 80 90.5\n"
    )
    lines["Diving"] += f"video_{word}_0000002 1 2\n"
    lines["CliffDiving"] += f"video_{word}_0000002 1 2\n"
    lines["Ambiguous"] = f"video_{word}_0000003 1 2\n"
    for name, text in lines.items():
        write(root / folder / "annotation", **{f"{name}_{split}_txt": text})
    plant(
        root,
        *(f"{word}/video_{word}_{n:07d}.mp4" for n in (1, 3, 4)),
        f"{word}/video_{word}_0000002.MP4",
    )


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


# --- class folders and GRID words


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


def grid_tree(root):
    plant(root, "clips/a_0_bin.mkv", "clips/b_1_blue.mkv")
    (root / "manifest.csv").write_text(
        "file,label,word_type,split\n"
        "clips/b_1_blue.mkv,blue,color,test\n"
        "clips/a_0_bin.mkv,bin,command,train\n"
        "clips/c_2_at.mkv,at,word,train\n"
        "clips/a_0_bin.mkv,bin,command,all\n"
        "clips/a_0_bin.mkv,,command,train\n"
    )


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


# --- all of them

HEADER_CELLS = {"youtube_id", "filename", "file", "mid"}
TREES = {
    "audioset": lambda root: unbalanced_tree(root, random.Random(0)),
    "audioset240k": lambda root: unbalanced_tree(root, random.Random(0)),
    "class_folders": lambda root: plant(root, "a/1.mp4", "b/2.mp4", "a/3.mp4"),
    "dcase2014": dcase_tree,
    "esc10": esc_tree,
    "esc50": esc_tree,
    "grid_words": grid_tree,
    "hmdb51": hmdb_tree,
    "kinetics400": kinetics_tree,
    "kinetics600": kinetics_tree,
    "kinetics700": kinetics_tree,
    "thumos14": thumos_tree,
    "ucf101": ucf_tree,
    "vggsound": lambda root: (
        plant(root, *(f"{youtube_id}_3.mp4" for youtube_id in IDS)),
        write(root, vggsound_csv="".join(f"{i},3,wind,test\n" for i in IDS)),
    ),
}


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
