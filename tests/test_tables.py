import csv
import io
import json
import os
import re
import subprocess
import sys

import pytest

from xdc_jax.errors import UserError
from xdc_jax.paper import render
from xdc_jax.paper.comparison import compare
from xdc_jax.paper.measured import collect
from xdc_jax.paper.published import TABLES, Trust


def row(part="split 1", top1=0.5, **changes):
    return {
        "verb": "finetune",
        "data": "ucf101",
        "part": part,
        "modality": "video",
        "train": "full",
        "pretraining": "kinetics_xdc",
        "k_video": 64,
        "k_audio": 128,
        "pretraining_seed": 0,
        "seed": 0,
        "label_fraction": 1.0,
        "num_frames": 8,
        "crop_size": 112,
        "test_clips": 10,
        "test_crops": 1,
        "video_top1": top1,
        **changes,
    }


def svm_row(part="fold 1", svm=0.5, **changes):
    return {
        "verb": "evaluate",
        "data": "esc50",
        "part": part,
        "modality": "audio",
        "pretraining": "audioset_xdc",
        "k_video": 64,
        "k_audio": 128,
        "pretraining_seed": 0,
        "seed": 0,
        "label_fraction": 1.0,
        "test_clips": 4000,
        "clips_per_record": 10,
        "crops": 1,
        "clip_s": 2.0,
        "svm": svm,
        **changes,
    }


def write(folder, rows, age=0):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    path.write_text(json.dumps({"rows": rows}))
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def markdown(folder):
    found, notes = collect(folder)
    return render.markdown(*compare(found), notes)


def lines_of(text, title):
    """The cells of the Markdown table under a title, without its header."""
    section = text.split(f"## {title}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in rows[2:]]


def cell(text, title, pretraining, result):
    (found,) = (
        line for line in lines_of(text, title) if line[:2] == [pretraining, result]
    )
    return dict(
        zip(("published", "ours", "difference", "seeds"), found[2:6], strict=True)
    )


METHODS, CLUSTERS, DATA, FC_ONLY, VIDEO, AUDIO, _ = (table.title for table in TABLES)


def test_an_empty_folder_gives_the_papers_tables(tmp_path):
    text = markdown(tmp_path)
    for table in TABLES:
        lines = iter(lines_of(text, table.title))
        for of_row in table.rows:
            for column, number in zip(table.columns, of_row.published, strict=True):
                name, result, published, ours, difference, seeds, _ = next(lines)
                assert (name, result) == (of_row.name, column.name)
                assert ours in ("not run", "-")
                assert difference == seeds == ""
                if number is None:
                    assert published == ""
                elif number.trust == Trust.VERIFIED:
                    assert published == number.text
                else:
                    assert published == f"{number.text} ({number.trust})"
        assert next(lines, None) is None
    assert render.OTHER_TITLE not in text
    assert "not run" not in str(lines_of(text, AUDIO)[:4])  # Human and AVTS


def test_ours_is_the_mean_over_seeds_of_the_mean_over_parts(tmp_path):
    shares = {0: (0.70, 0.72, 0.77), 1: (0.76, 0.74, 0.78)}
    for seed, of_seed in shares.items():
        rows = [row(f"split {i}", x, seed=seed) for i, x in enumerate(of_seed, 1)]
        write(tmp_path / str(seed), rows)
    means = [100 * sum(of_seed) / 3 for of_seed in shares.values()]
    mean = sum(means) / 2
    std = sum((x - mean) ** 2 for x in means) ** 0.5  # n - 1 = 1
    assert cell(markdown(tmp_path), METHODS, "XDC", "UCF101") == {
        "published": "74.2 (unverified)",
        "ours": f"{mean:.1f} ± {std:.1f}",
        "difference": f"{mean - 74.2:+.1f}",
        "seeds": "2",
    }
    # The same runs are the same pretraining in the table of data.
    line = cell(markdown(tmp_path), DATA, "XDC, Kinetics (240K)", "UCF101")
    assert line["ours"] == f"{mean:.1f} ± {std:.1f}"


def test_a_seed_is_that_of_pretraining_and_finetuning(tmp_path):
    rows = [
        row(f"split {i}", 0.5 + seed / 10, pretraining_seed=seed)
        for i in (1, 2, 3)
        for seed in (0, 1, 2)
    ]
    write(tmp_path, rows)
    line = cell(markdown(tmp_path), METHODS, "XDC", "UCF101")
    assert (line["ours"], line["seeds"]) == ("60.0 ± 10.0", "3")


@pytest.mark.parametrize(
    ("rows", "ours"),
    [
        ([row("split 1", 0.741)], "74.1 (split 1 of 3)"),
        ([row("split 1", 0.7), row("split 3", 0.8)], "75.0 (splits 1, 3 of 3)"),
        (
            [row("split 1", 0.7), row("split 2", 0.8, seed=1)],
            "75.0 ± 7.1 (seeds differ in parts, of 3)",
        ),
        (
            [row(f"split {i}", 0.5) for i in (1, 2, 3)] + [row("split 1", 0.9, seed=1)],
            "50.0 (1 incomplete seed left out)",
        ),
    ],
)
def test_missing_splits_are_marked(tmp_path, rows, ours):
    write(tmp_path, rows)
    assert cell(markdown(tmp_path), METHODS, "XDC", "UCF101")["ours"] == ours


def test_missing_folds_are_marked(tmp_path):
    write(tmp_path, [svm_row("fold 1", 0.8), svm_row("fold 4", 0.9)])
    line = cell(markdown(tmp_path), AUDIO, "XDC, AudioSet", "ESC-50")
    assert line["ours"] == "85.0 (folds 1, 4 of 5)"
    assert line["difference"] == "+0.2"


def test_another_length_of_the_clips_of_an_svm_is_marked(tmp_path):
    folds = range(1, 6)
    write(tmp_path, [svm_row(f"fold {i}", 0.8, clip_s=0.2667) for i in folds])
    line = cell(markdown(tmp_path), AUDIO, "XDC, AudioSet", "ESC-50")
    assert line["ours"] == "80.0 (clips of 0.2667 s)"


def test_number_of_clusters_chooses_the_row(tmp_path):
    for k in (128, 256):
        rows = [row(f"split {i}", k / 1000, k_video=k, k_audio=k) for i in (1, 2, 3)]
        write(tmp_path / str(k), rows)
    text = markdown(tmp_path)
    assert cell(text, CLUSTERS, "XDC, k = 128", "UCF101")["ours"] == "12.8"
    assert cell(text, CLUSTERS, "XDC, k = 256", "UCF101")["ours"] == "25.6"
    assert cell(text, CLUSTERS, "XDC, k = 64", "UCF101")["ours"] == "not run"
    assert cell(text, METHODS, "XDC", "UCF101")["ours"] == "not run"
    assert render.OTHER_TITLE not in text


def test_state_of_the_art_has_lines_of_our_own_and_of_released_weights(tmp_path):
    large = {"num_frames": 32, "crop_size": 224}
    released = {"pretraining": "r2plus1d_18_xdc_audioset", "k_video": None}
    released |= {"k_audio": None, "pretraining_seed": None, "test_crops": 3}
    rows = [row(f"split {i}", 0.93, **large, **released) for i in (1, 2, 3)]
    rows += [row("split 2", 0.5, pretraining="audioset_xdc", **large)]
    write(tmp_path, rows)
    lines = lines_of(markdown(tmp_path), VIDEO)
    ours = [line[3] for line in lines if line[:2] == ["XDC, AudioSet", "UCF101"]]
    assert ours == [
        "93.0 (released weights; 10 test clips x 3 crops)",
        "50.0 (split 2 of 3)",
    ]
    assert cell(markdown(tmp_path), DATA, "XDC, AudioSet (2M)", "UCF101")["ours"] == (
        "not run"
    )


def test_results_of_no_cell_are_other_runs(tmp_path):
    rows = [
        row("test", 0.8 + seed / 10, data="grid_words", seed=seed, label_fraction=0.1)
        for seed in (0, 1)
    ]
    rows += [row("split 1", label_fraction=0.5), row("test"), row(train="fc_only")]
    rows += [svm_row("test", 0.25, data="grid_words", pretraining=None)]
    write(tmp_path, rows)
    text = markdown(tmp_path)
    lines = lines_of(text, render.OTHER_TITLE)
    assert [line[0] for line in lines] == ["grid_words"] * 2 + ["ucf101"] * 3
    assert lines[0][2:5] == ["unknown", "64/128", "svm"]
    assert lines[1][2:] == [
        *("kinetics_xdc", "64/128", "full", "10%", "8x112", "test", "2"),
        "85.0 ± 7.1",
    ]
    assert cell(text, METHODS, "XDC", "UCF101")["ours"] == "not run"


def test_other_rows_and_hidden_folders_are_passed_over(tmp_path):
    write(tmp_path / "pretraining", [{"method": "xdc", "seed": 0}, {"verb": "new"}])
    write(tmp_path / ".cache", [row()])
    text = markdown(tmp_path)
    assert cell(text, METHODS, "XDC", "UCF101")["ours"] == "not run"
    assert "Not shown: 2 rows of other kinds" in text


def test_of_two_results_the_newer_file_counts_and_a_note_says_so(tmp_path):
    write(tmp_path / "b_old", [row(top1=0.6)], age=60)
    write(tmp_path / "a_new", [row(top1=0.7)])
    text = markdown(tmp_path)
    line = cell(text, METHODS, "XDC", "UCF101")
    assert (line["ours"], line["seeds"]) == ("70.0 (split 1 of 3)", "1")
    assert re.search(r"60\.0 in .*b_old.* passed over.*a_new.* has 70\.0", text)
    write(tmp_path / "b_old", [row(top1=0.7)], age=60)
    assert "passed over" not in markdown(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "results.json: found JSONDecodeError.*damaged"),
        ("[]", "results.json: found TypeError"),
        ('{"rows": [1]}', "rows is not a list of objects"),
        ('{"row": []}', "results.json: found KeyError"),
        (json.dumps({"rows": [row(top1=74.2)]}), "row 1 .*74.2, expected a share"),
        (json.dumps({"rows": [row(top1=None)]}), "row 1 .*expected a share"),
        (json.dumps({"rows": [row(data=["ucf101"])]}), "data is .*expected a string"),
        ('{"rows": [{"verb": "evaluate"}]}', "not a result of `xdc evaluate`.*svm"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, content, message):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.json").write_text(content)
    with pytest.raises(UserError, match=f"(?s){tmp_path}/run.*{message}"):
        collect(tmp_path)


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(UserError, match="--runs: found no folder .*nowhere"):
        collect(tmp_path / "nowhere")


def mixed_rows(folder):
    rows = [row(f"split {i}", 0.7 + i / 100) for i in (1, 2, 3)]
    rows += [row("split 1", 0.5, train="fc_only", pretraining="50%_of a&b_{x}#~^\\")]
    rows += [svm_row(f"fold {i}", 0.9) for i in (1, 2, 3, 4, 5)]
    write(folder, rows)
    found, _ = collect(folder)
    return compare(found)


def test_csv_has_every_cell(tmp_path):
    paper, others = mixed_rows(tmp_path)
    text = render.comma_separated(paper, others)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert tuple(rows[0]) == render.CSV_COLUMNS
    cells = sum(len(table.rows) * len(table.columns) for table in TABLES)
    assert len(rows) == cells + len(others) == cells + 1
    (ours,) = [r for r in rows if (r["table"], r["row"]) == (METHODS, "XDC")][:1]
    assert float(ours["ours"]) == pytest.approx(72)
    assert float(ours["difference"]) == pytest.approx(72 - 74.2)
    assert (ours["published"], ours["trust"]) == ("74.2", "unverified")
    assert ours["pretrain"].startswith("xdc pretrain --config=configs/paper/kinetics")
    assert ours["measure"].endswith("--workdir=runs/kinetics_xdc_ucf101")
    assert all((r["published"] == "") == (r["trust"] == "") for r in rows)
    assert rows[-1]["table"] == render.OTHER_TITLE
    assert rows[-1]["pretraining"] == "50%_of a&b_{x}#~^\\"
    assert rows[-1]["parts"] == "split 1"


def test_latex_parses_back_to_the_markdown_cells(tmp_path):
    paper, others = mixed_rows(tmp_path)
    text = render.latex(paper, others)
    bodies = re.findall(r"\\midrule\n(.*?)\n *\\bottomrule", text, re.S)
    assert len(bodies) == text.count(r"\begin{table}") == len(TABLES) + 1
    printed = render.markdown(paper, others, [])
    for title, body in zip(
        [*(table.title for table in TABLES), render.OTHER_TITLE], bodies, strict=True
    ):
        expected = lines_of(printed, title)
        if title != render.OTHER_TITLE:
            expected = [line[:-1] for line in expected]  # without the commands
        found = [
            [unescape(c.strip()) for c in re.split(r"(?<!\\)&", line.strip()[:-3])]
            for line in body.splitlines()
        ]
        assert found == expected
    # Nothing that LaTeX would read otherwise is left; labels may have underscores.
    without_labels = re.sub(r"\\label\{.*\}", "", text.split("\n", 1)[1])
    assert not re.search(r"(?<!\\)[%#_]", without_labels)


def unescape(text):
    text = text.replace(r"$\pm$", "±").replace(r"\textasciitilde{}", "~")
    text = text.replace(r"\textasciicircum{}", "^")
    text = re.sub(r"\\([&%$#_{}])", r"\1", text)
    return text.replace(r"\textbackslash{}", "\\")


def xdc_tables(*args):
    return subprocess.run(
        [sys.executable, "-m", "xdc_jax", "tables", *args],
        capture_output=True,
        text=True,
    )


def test_the_verb_prints_and_writes(tmp_path):
    write(tmp_path / "runs", [row()])
    out = tmp_path / "out"
    done = xdc_tables(f"--runs={tmp_path / 'runs'}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in out.iterdir()} == {
        "tables.csv",
        "tables.md",
        "tables.tex",
    }
    assert done.stdout.startswith((out / "tables.md").read_text())
    assert "tables.tex are written" in done.stdout


def test_the_verb_fails_without_a_folder(tmp_path):
    done = xdc_tables(f"--runs={tmp_path / 'nowhere'}")
    assert done.returncode == 2
    assert done.stderr.startswith("xdc tables: error: --runs: found no folder")
