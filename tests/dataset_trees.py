"""Data sets that lie in a folder, made small in the layout of their owners."""

import random
import re
import string

import pytest

from data_pipelines import datasets
from data_pipelines.datasets import dcase2014, thumos14
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


CLASSES = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/t/dd00088,"Gush, spurt"\n'


def segment(youtube_id, start="30.000", end="40.000", mids="/m/09x0r"):
    return f'{youtube_id}, {start}, {end}, "{mids}"\n'


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


def dcase_tree(root, folders=("scenes_stereo", "scenes_stereo_testset")):
    for folder in folders:
        for scene in dcase2014.SCENES:
            plant(root / folder, *(f"{scene}{3 * n:02d}.wav" for n in range(1, 11)))


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
