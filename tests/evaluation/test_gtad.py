"""Files of features, read back the way the code of G-TAD reads them."""

import h5py
import numpy as np
import pytest

from data_pipelines.features import Windows
from xdc_jax.errors import UserError
from xdc_jax.evaluation import gtad

HEADER = "video,type,type_idx,start,end,startFrame,endFrame\n"
VAL = "video_validation_0000051"
TEST = "video_test_0000004"


def annotate(folder, fps=30):
    folder.mkdir(exist_ok=True)
    for split, name in (("val", VAL), ("test", TEST)):
        lines = [
            f"{name},Diving,26,{end - 1},{end},{round((end - 1) * fps)},"
            f"{round(end * fps)}\n"
            for end in (2.3, 31.4, 7.0)
        ]
        (folder / f"{split}_Annotation.csv").write_text(HEADER + "".join(lines))
    return folder


def make_windows(count=37, stride_s=5 / 30, window_s=0.5, dim=6, seed=0):
    start = np.float32(np.arange(count) * stride_s)
    rows = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return Windows(start, start + np.float32(window_s), rows)


def read_as_gtad(folder, name, skip=5):
    """Every skip-th row of flow and RGB, side by side."""
    split = "val" if "val" in name else "test"
    found = []
    for kind in ("flow", "rgb"):
        with h5py.File(folder / f"{kind}_{split}.h5", "r") as file:
            found.append(file[name][::skip, ...])
    count = min(len(rows) for rows in found)
    return np.concatenate([rows[:count, :] for rows in found], axis=1)


@pytest.mark.parametrize("fps", [25, 29.97, 30])
def test_row_i_is_the_window_around_frame_i(tmp_path, fps):
    windows = {f"validation/{VAL}.mp4": make_windows(), TEST: make_windows(11, seed=1)}
    counts, missing = gtad.write(
        windows, annotate(tmp_path / "a", fps), tmp_path / "out"
    )
    assert (counts, missing) == ({"val": 1, "test": 1}, [])
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "flow_test.h5", "flow_val.h5", "rgb_test.h5", "rgb_val.h5"
    ]  # fmt: skip
    for name, of in ((VAL, windows[f"validation/{VAL}.mp4"]), (TEST, windows[TEST])):
        rows = read_as_gtad(tmp_path / "out", name)
        assert rows.dtype == np.float32
        length_s = float(of.end_s[-1])
        assert abs((len(rows) - 1) * 5 / fps - length_s) < 5 / fps + 0.01
        for i, row in enumerate(rows):
            centre = (of.start_s.astype(float) + of.end_s) / 2
            away = np.abs(centre - 5 * i / fps)
            mine = np.flatnonzero((of.features == row).all(1))
            assert len(mine) == 1
            assert away[mine[0]] == pytest.approx(away.min(), abs=2e-3)


def test_one_window(tmp_path):
    found = gtad.per_frame(make_windows(1, window_s=0.1), 30.0)
    assert found.shape == (3, 6)


def test_only_one_split_and_annotated_videos_that_are_missing(tmp_path):
    windows = {VAL: make_windows(), "video_validation_0000999": make_windows()}
    counts, missing = gtad.write(windows, annotate(tmp_path / "a"), tmp_path / "out")
    assert counts == {"val": 1, "test": 0}
    assert missing == [TEST]
    with h5py.File(tmp_path / "out" / "rgb_val.h5", "r") as file:
        assert list(file) == [VAL]
    with h5py.File(tmp_path / "out" / "rgb_test.h5", "r") as file:
        assert list(file) == []


def test_bad_windows_leave_no_file(tmp_path):
    lists, out = annotate(tmp_path / "a"), tmp_path / "out"
    bad = make_windows()
    bad.features[3, 1] = np.nan
    with pytest.raises(UserError, match=f"{VAL}.mkv: found features that are not"):
        gtad.write({f"{VAL}.mkv": bad}, lists, out)
    with pytest.raises(UserError, match=rf"expected .* {VAL}; found holiday"):
        gtad.write({"holiday.mp4": make_windows()}, lists, out)
    with pytest.raises(UserError, match="two videos of one name"):
        gtad.write({f"a/{VAL}": make_windows(), f"b/{VAL}": make_windows()}, lists, out)
    assert not out.exists()


def test_a_failure_half_way_leaves_what_was_there(tmp_path, monkeypatch):
    lists, out = annotate(tmp_path / "a"), tmp_path / "out"
    gtad.write({VAL: make_windows(), TEST: make_windows()}, lists, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    original = gtad.per_frame

    def fails(windows, fps):
        if len(windows.start_s) == 11:
            raise OSError(28, "No space left on device")
        return original(windows, fps)

    monkeypatch.setattr(gtad, "per_frame", fails)
    with pytest.raises(OSError, match="No space left"):
        gtad.write({VAL: make_windows(5), TEST: make_windows(11)}, lists, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("video,start\na,1\n", "expected columns video, end"),
        (HEADER + f"{VAL},Diving,26,1,x,30,60\n", "expected columns video, end"),
        (HEADER + f"{VAL},Diving,26,1,2,30,60000\n", "frames per second"),
    ],
)
def test_bad_annotations(tmp_path, text, message):
    lists = annotate(tmp_path / "a")
    if text is None:
        (lists / "val_Annotation.csv").unlink()
    else:
        (lists / "val_Annotation.csv").write_text(text)
    with pytest.raises(UserError, match=rf"val_Annotation.csv: .*{message}"):
        gtad.write({VAL: make_windows()}, lists, tmp_path / "out")
