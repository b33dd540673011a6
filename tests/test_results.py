import json

import numpy as np

from xdc_jax import results


def row(method, seed, video, audio=0.5):
    return {
        "data": "digits",
        "method": method,
        "seed": seed,
        "video_probe": video,
        "audio_probe": audio,
        "nmi_video": 0.25,
        "nmi_audio": None,
        "seconds": 60.4,
    }


def test_table_shows_mean_and_sample_deviation_over_seeds():
    rows = [row("sdc", 0, 0.5), row("xdc", 0, 0.9), row("xdc", 1, 0.8)]
    lines = results.table(rows).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][:4] == ["data", "method", "seeds", "video probe"]
    assert cells[2] == ["digits", "sdc", "1", "0.500", "0.500", "0.250", "-", "60"]
    assert cells[3][:4] == ["digits", "xdc", "2", "0.850 ± 0.071"]
    assert len({len(line) for line in lines}) == 1


def test_runs_of_one_seed_that_measure_different_things_are_one_line():
    rows = [row("xdc_same", 0, 0.5, None), row("xdc_same", 0, None, 0.25)]
    line = results.table(rows).splitlines()[2]
    assert [cell.strip() for cell in line.split("|")][3:6] == ["1", "0.500", "0.250"]


def test_written_rows_are_json(tmp_path):
    rows = [row("sdc", 0, float(np.float32(0.5)))]
    results.write(tmp_path / "deep" / "results.json", rows)
    assert json.loads((tmp_path / "deep" / "results.json").read_text()) == {
        "rows": rows
    }


def test_bars_in_cells_are_escaped():
    lines = results.markdown([("a|b", "c"), ("1", "2")]).splitlines()
    assert lines == [r"| a\|b | c |", "| ---- | - |", "| 1    | 2 |"]


def test_counts_that_agree_are_whole_numbers_without_a_spread():
    rows = [{"data": "a", "seed": i, "n": 10, "x": 0.5} for i in range(2)]
    line = results.table(rows, {"n": "N", "x": "x"}, ("data",)).splitlines()[2]
    assert [cell.strip() for cell in line.strip("|").split("|")][2:] == [
        "10",
        "0.500 ± 0.000",
    ]
