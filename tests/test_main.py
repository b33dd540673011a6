"""The command line, as a user meets it."""

import subprocess
import sys

import pytest


def xdc(*args):
    return subprocess.run(
        [sys.executable, "-m", "xdc_jax", *map(str, args)],
        capture_output=True,
        text=True,
    )


def test_help_lists_the_verbs():
    for args in ((), ("--help",)):
        done = xdc(*args)
        assert done.returncode == 0
        assert all(verb in done.stdout for verb in ("demo", "prepare", "pretrain"))


@pytest.mark.parametrize("verb", ["demo", "prepare", "pretrain"])
def test_help_of_a_verb_shows_an_example_and_its_flags(verb):
    done = xdc(verb, "--help")
    assert done.returncode == 0, done.stderr
    assert "Example" in done.stdout
    assert f"xdc {verb}" in done.stdout
    assert "--out:" in done.stdout or "--workdir:" in done.stdout


def test_unknown_verb():
    done = xdc("pretrian")
    assert done.returncode == 2
    assert "did you mean 'pretrain'" in done.stderr


def test_missing_data_is_an_error_without_traceback(tmp_path):
    done = xdc(
        "pretrain",
        "--config=configs/digits_tones.py",
        f"--data={tmp_path / 'none'}",
        f"--workdir={tmp_path / 'run'}",
    )
    assert done.returncode == 2
    assert f"{tmp_path / 'none'}" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("configs/none.py", "configs/none.py"),
        ("configs/digits_tones.py:mehtod=sdc", "did you mean 'method'"),
        ("configs/digits_tones.py:method=moco", "expected one of sdc, mdc"),
    ],
)
def test_bad_config_is_an_error_without_traceback(config, message, tmp_path):
    done = xdc(
        "pretrain", f"--config={config}", f"--data={tmp_path}", f"--workdir={tmp_path}"
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_config_key_on_the_command_line(tmp_path):
    done = xdc(
        "pretrain",
        "--config=configs/digits_tones.py",
        "--config.optimiser.momentum=0.5",
        f"--data={tmp_path}",
        f"--workdir={tmp_path}",
    )
    assert done.returncode == 2
    assert "optimiser" in done.stderr
    assert "optimizer" in done.stderr
    assert "Traceback" not in done.stderr
