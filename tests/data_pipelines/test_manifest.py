import random

import pytest

from data_pipelines import manifest
from xdc_jax.errors import UserError


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_all_columns_sorted_by_path_and_start(tmp_path):
    path = write(
        tmp_path / "m.csv",
        "path,label,split,start_s,end_s,fold,partitions\n"
        "b.mp4,dog,test,0,2.5,1,train/test/-\n"
        "a.mp4,cat,,10,12,,\n"
        '"a, too.mp4",,train,,,-1,-/-/val\n'
        "a.mp4,cat,train,2,,0,\n",
    )
    result = manifest.read_manifest(path)
    assert [(r.path, r.start_s, r.end_s, r.split, r.fold) for r in result.rows] == [
        ("a, too.mp4", 0.0, None, "train", -1),
        ("a.mp4", 2.0, None, "train", 0),
        ("a.mp4", 10.0, 12.0, "train", -1),
        ("b.mp4", 0.0, 2.5, "test", 1),
    ]
    partitions = ["-/-/val", "", "", "train/test/-"]
    assert [r.partitions for r in result.rows] == partitions
    assert result.class_names == ("cat", "dog")
    assert [result.class_id(r) for r in result.rows] == [-1, 0, 0, 1]
    assert result.rows[1].location == str(tmp_path / "a.mp4")
    assert result.splits == ("test", "train")


def test_the_order_of_rows_does_not_matter(tmp_path):
    lines = [f"{i % 7}.mp4,{i // 7},c{i % 3}\n" for i in range(30)]
    header = "path,start_s,label\n"
    first = manifest.read_manifest(write(tmp_path / "a.csv", header + "".join(lines)))
    random.Random(0).shuffle(lines)
    second = manifest.read_manifest(write(tmp_path / "b.csv", header + "".join(lines)))
    assert first == second


def test_a_manifest_keeps_classes_without_rows_and_what_is_wrong():
    rows = [manifest.Row("b.mp4", "/b.mp4", label="dog"), manifest.Row("a", "/a")]
    result = manifest.Manifest.of(
        rows, class_names=("cat", "dog"), missing=("z", "y"), problems=("q", "p")
    )
    assert [row.path for row in result.rows] == ["a", "b.mp4"]
    assert result.class_names == ("cat", "dog")
    assert result.class_id(result.rows[1]) == 1
    assert (result.missing, result.problems) == (("y", "z"), ("q", "p"))


def test_absolute_paths_and_urls_stay_and_a_byte_order_mark_is_no_column(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("path\n/data/a.mp4\ngs://bucket/b.mp4\n", encoding="utf-8-sig")
    rows = manifest.read_manifest(path).rows
    assert [row.location for row in rows] == ["/data/a.mp4", "gs://bucket/b.mp4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,lable\na.mp4,x\n", r"unknown are \['lable'\]"),
        ("file,label\na.mp4,x\n", "expected `path`"),
        ("path,path\na.mp4,x\n", "each once"),
        ("", "found the columns none"),
        ("path,label\n", "no rows"),
        ("path,label\n,x\n", "line 2: path is ''"),
        ("path,label\na.mp4,x\nb.mp4,x\na.mp4,y\n", "line 4: repeats line 2"),
        ("path,start_s\na.mp4,0\na.mp4,0.0\n", "line 3: repeats line 2"),
        ("path,label\na.mp4\n", "line 2: found a different number of cells"),
        ("path,label\na.mp4,x,y\n", "line 2: found a different number of cells"),
        ("path,start_s\na.mp4,nan\n", "start_s is 'nan'"),
        ("path,start_s\na.mp4,-1\n", "start_s is '-1'"),
        ("path,start_s,end_s\na.mp4,3,3\n", "end_s is '3', expected seconds, more"),
        ("path,fold\na.mp4,1.5\n", "fold is '1.5'"),
        ("path,split\na.mp4,my split\n", "split is 'my split'"),
        ("path,partitions\na.mp4,train/tset\n", "line 2: partitions is 'train/tset'"),
        ("path,partitions\na.mp4,train/\n", "partitions is 'train/', expected train, "),
        ("path,partitions\na.mp4,/\n", "partitions is '/'"),
        (
            "path,partitions\na.mp4,train/-\nb.mp4,\nc.mp4,test\n",
            r"line 4: partitions is 'test', .* as in line 2 \('train/-'\)",
        ),
    ],
)
def test_a_wrong_manifest_is_named(tmp_path, text, message):
    path = write(tmp_path / "m.csv", text)
    with pytest.raises(UserError, match=message) as error:
        manifest.read_manifest(path)
    assert str(path) in str(error.value)


def test_a_missing_or_binary_manifest_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot open"):
        manifest.read_manifest(tmp_path / "none.csv")
    with pytest.raises(UserError, match="cannot open"):
        manifest.read_manifest(tmp_path)
    (tmp_path / "x.csv").write_bytes(b"path\n\xff\xfe\x00")
    with pytest.raises(UserError, match="not a CSV file in UTF-8"):
        manifest.read_manifest(tmp_path / "x.csv")


def test_a_folder_gives_its_media_files(tmp_path):
    for name in ("b/2.MP4", "b/c/3.webm", "1.mkv", ".hidden.mp4", ".d/4.mp4", "x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    plain = manifest.scan_folder(tmp_path, folder_labels=False)
    assert [r.path for r in plain.rows] == ["1.mkv", "b/2.MP4", "b/c/3.webm"]
    assert plain.class_names == ()
    labelled = manifest.scan_folder(tmp_path, folder_labels=True)
    assert [r.label for r in labelled.rows] == ["", "b", "b"]


def test_a_missing_or_empty_folder_is_named(tmp_path):
    with pytest.raises(UserError, match="found nothing"):
        manifest.scan_folder(tmp_path / "none", folder_labels=False)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="found no media file among 1 other"):
        manifest.scan_folder(tmp_path, folder_labels=False)
    with pytest.raises(UserError, match="found a file"):
        manifest.scan_folder(tmp_path / "notes.txt", folder_labels=False)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "m.csv"
    cells = {"path": "a,b.mp4", "label": "x", "split": "test", "partitions": "test/-"}
    manifest.write_manifest(path, [cells])
    (row,) = manifest.read_manifest(path).rows
    assert {name: getattr(row, name) for name in cells} == cells
