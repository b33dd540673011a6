"""Weights of PyTorch and back: values, names, files, bad files."""

import os
import subprocess
import sys
import zipfile

import jax
import numpy as np
import pytest

from tests.arrays import ArrayClips
from tests.conftest import make_tiny_config
from xdc_jax import convert, load_encoder
from xdc_jax.encoder import Encoder
from xdc_jax.errors import UserError
from xdc_jax.files import cache_dir
from xdc_jax.models import registry
from xdc_jax.pretrain import pretrain
from xdc_jax.weights import encoder_dir, layout, published, torch_files

torch = pytest.importorskip("torch")
from tests.weights import torch_release  # noqa: E402

SMALL = {"width": 8, "stage_sizes": (1, 2, 1)}


@pytest.fixture(scope="module")
def tiny_run(tmp_path_factory):
    config = make_tiny_config()
    config.iterations = config.epochs = 1
    workdir = tmp_path_factory.mktemp("run")
    pretrain(config, ArrayClips(num_train=72, num_test=24), workdir)
    return workdir


def release(official=True, seed=0, **sizes):
    torch.manual_seed(seed)
    return torch_release.randomised(torch_release.VideoResNet(official, **sizes), seed)


def save(model, path, **options):
    torch.save(model.state_dict(), path, **options)
    return path


def arrays(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def rgb(shape, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*shape, 3), dtype=np.uint8)


def normalised(clips):
    mean = torch.tensor((0.43216, 0.394666, 0.37645))
    std = torch.tensor((0.22803, 0.22145, 0.216989))
    pixels = (torch.from_numpy(clips).float() / 255 - mean) / std
    return pixels.permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize("name", sorted(published.HASH_PREFIXES))
def test_released_layout_gives_the_features_of_pytorch(name, tmp_path, monkeypatch):
    """Random weights in the released layout: legacy and zip files by turns."""
    names = sorted(published.HASH_PREFIXES)
    theirs = release(seed=names.index(name))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = cache_dir("weights") / f"{name}-{published.HASH_PREFIXES[name]}.pth"
    path.parent.mkdir(parents=True)
    is_zip = names.index(name) % 2 == 0
    save(theirs, path, _use_new_zipfile_serialization=is_zip)
    assert zipfile.is_zipfile(path) == is_zip

    saved, table = convert.read_torch(name)
    assert saved.spec == layout.ModelSpec("r2plus1d_18")
    assert "| matched          |   185 |" in table
    encoder_dir.save(tmp_path / "encoder", saved)
    ours = load_encoder(tmp_path / "encoder")
    for shape in ((2, 8, 112, 112), (1, 32, 112, 112), (1, 8, 224, 224)):
        clips = rgb(shape)
        with torch.no_grad():
            feature_map = theirs.feature_map(normalised(clips))
        found = np.asarray(ours.feature_map(clips))
        expected = feature_map.permute(0, 2, 3, 4, 1).numpy()
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(
            np.asarray(ours(clips)), expected.mean((1, 2, 3)), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_there_and_back_keeps_every_bit(suffix, tmp_path):
    pytest.importorskip("safetensors")
    theirs = release(classes=7)
    encoder, _ = convert.read_torch(str(save(theirs, tmp_path / "a.pth")))
    encoder_dir.save(tmp_path / "encoder", encoder)
    again = convert.open_encoder(tmp_path / "encoder")
    back = tmp_path / f"back{suffix}"
    torch_files.write(back, layout.to_torch(again.variables, again.spec))
    found, expected = torch_files.read(back), arrays(theirs)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        np.testing.assert_array_equal(found[name], value, err_msg=name)


@pytest.mark.parametrize("name", [*registry.VIDEO_ENCODERS, *registry.AUDIO_ENCODERS])
def test_every_network_is_recognised_and_equals_pytorch(name):
    if name in registry.VIDEO_ENCODERS:
        theirs = release(name == "r2plus1d_18", seed=1, **SMALL)
        inputs = rgb((2, 8, 32, 32))
        batch = normalised(inputs)
    else:
        theirs = torch_release.AudioResNet(name == "audio_resnet18_vmz", **SMALL)
        torch_release.randomised(theirs, 1)
        rng = np.random.default_rng(0)
        inputs = rng.normal(size=(2, 50, 40, 1)).astype(np.float32)
        batch = torch.from_numpy(inputs).permute(0, 3, 1, 2)
    state = arrays(theirs)
    comparison = layout.recognise(state)
    assert comparison.spec == layout.ModelSpec(name, **SMALL)
    assert comparison.fits
    assert not comparison.unexpected
    variables = layout.from_torch(state, comparison.spec)
    ours = Encoder(
        encoder_dir.SavedEncoder(comparison.spec, "kinetics", "test", variables)
    )
    with torch.no_grad():
        expected = theirs(batch).numpy()
    np.testing.assert_allclose(np.asarray(ours(inputs)), expected, rtol=1e-4, atol=1e-4)
    back = layout.to_torch(variables, comparison.spec)
    assert back.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(back[key], value, err_msg=key)


def test_wrappers_and_half_precision_are_taken_off(tmp_path):
    theirs = release(**SMALL)
    half = {
        f"module.{name}": value.half() if value.is_floating_point() else value
        for name, value in theirs.state_dict().items()
    }
    torch.save({"state_dict": half, "epoch": 3}, tmp_path / "a.pth")
    encoder, _ = convert.read_torch(str(tmp_path / "a.pth"))
    found = layout.to_torch(encoder.variables, encoder.spec)
    for name, value in arrays(theirs).items():
        if name.endswith(layout.COUNTER):
            continue
        assert found[name].dtype == np.float32
        np.testing.assert_array_equal(found[name], value.astype(np.float16))


def test_a_trained_run_loads_in_pytorch(tiny_run, tmp_path):
    """Both encoders of a run, by `--to=torch`, give the run's features in PyTorch."""
    for modality in ("video", "audio"):
        encoder = convert.open_encoder(tiny_run, modality)
        path = tmp_path / f"{modality}.pth"
        torch_files.write(path, layout.to_torch(encoder.variables, encoder.spec))
        sizes = {"width": encoder.spec.width, "stage_sizes": encoder.spec.stage_sizes}
        if modality == "video":
            theirs = torch_release.VideoResNet(True, **sizes)
            clips = rgb((3, 4, 16, 16))
            batch = normalised(clips)
        else:
            theirs = torch_release.AudioResNet(False, **sizes)
            clips = np.random.default_rng(0).normal(size=(3, 16, 16, 1))
            clips = clips.astype(np.float32)
            batch = torch.from_numpy(clips).permute(0, 3, 1, 2)
        theirs.load_state_dict(torch.load(path, weights_only=True), strict=True)
        with torch.no_grad():
            expected = theirs.eval()(batch).numpy()
        found = np.asarray(load_encoder(tiny_run, modality)(clips))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_the_wrong_network_is_an_error_that_names_the_tensors(tmp_path):
    path = str(save(release(official=True), tmp_path / "a.pth"))
    with pytest.raises(
        UserError, match="not the weights of r2plus1d_18_torchvision"
    ) as e:
        convert.read_torch(path, "r2plus1d_18_torchvision")
    for stage in (2, 3, 4):
        assert f"layer{stage}.0.conv2.0.0.weight" in str(e.value)
        assert f"layer{stage}.1.conv2.0.0.weight" not in str(e.value)


def test_missing_and_unexpected_tensors_are_named(tmp_path):
    state = dict(release(**SMALL).state_dict())
    state["extra.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "more.pth")
    _, table = convert.read_torch(str(tmp_path / "more.pth"))
    assert "unexpected: extra.weight" in table
    del state["layer2.1.conv1.1.running_var"]
    torch.save(state, tmp_path / "less.pth")
    with pytest.raises(UserError, match=r"layer2\.1\.conv1\.1\.running_var"):
        convert.read_torch(str(tmp_path / "less.pth"))


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_bad_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = release(**SMALL).state_dict()
    torch.save({"state_dict": state, "x": Harmful()}, "harmful.pth")
    torch.save({"a": 1}, "numbers.pth")
    torch.save({"a": torch.zeros(3)}, "other.pth")
    torch.save(state, "whole.pth")
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    torch.save(state, "whole_old.pth", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "whole_old.pth").read_bytes()
    (tmp_path / "cut_old.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "text.pth").write_text("not weights")
    (tmp_path / "text.safetensors").write_text("not weights")
    nan = dict(state)
    nan["stem.1.bias"] = torch.full_like(nan["stem.1.bias"], torch.nan)
    torch.save(nan, "nan.pth")
    for name, message in {
        "harmful.pth": "not a file of tensors alone",
        "numbers.pth": "expected a state dict",
        "other.pth": "no R.2.1.D and no audio ResNet",
        "cut.pth": "cannot be read",
        "cut_old.pth": "cannot be read",
        "empty.pth": "cannot be read",
        "text.pth": "cannot be read|not a file of tensors",
        "text.safetensors": "cannot be read",
        "nan.pth": "stem.1.bias: holds NaN",
        "r2plus1d_18_xdc": "no such file, and no released checkpoint",
    }.items():
        with pytest.raises(UserError, match=f"^{name}: .*(?:{message})"):
            convert.read_torch(name)
    assert not (tmp_path / "harmed").exists()


def test_bad_folders(tmp_path):
    with pytest.raises(UserError, match="found neither encoder.json nor config.json"):
        convert.open_encoder(tmp_path)
    encoder, _ = convert.read_torch(str(save(release(**SMALL), tmp_path / "a.pth")))
    with pytest.raises(UserError, match="exists already and is not empty"):
        encoder_dir.save(tmp_path, encoder)
    encoder_dir.save(tmp_path / "e", encoder)
    with pytest.raises(UserError, match="is a video encoder, not audio"):
        convert.open_encoder(tmp_path / "e", "audio")
    with pytest.raises(UserError, match=r"a\.pth: exists already"):
        torch_files.write(tmp_path / "a.pth", {})
    description = tmp_path / "e" / "encoder.json"
    text = description.read_text()
    description.write_text(text.replace('"width": 8', '"width": 12'))
    with pytest.raises(UserError, match="the arrays are of another encoder"):
        convert.open_encoder(tmp_path / "e")
    description.write_text(text[:40])
    with pytest.raises(UserError, match="not an encoder of xdc"):
        convert.open_encoder(tmp_path / "e")


def test_a_full_disk_leaves_nothing_that_looks_finished(tmp_path):
    encoder, _ = convert.read_torch(str(save(release(**SMALL), tmp_path / "a.pth")))
    state = layout.to_torch(encoder.variables, encoder.spec)
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    (tmp_path / ".b.pth.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"b\.pth: cannot be written"):
        torch_files.write(tmp_path / "b.pth", state)
    assert not (tmp_path / "b.pth").exists()


def test_the_verb(tmp_path):
    save(release(classes=5, **SMALL), tmp_path / "a.pth")

    def xdc(*args):
        return subprocess.run(
            [sys.executable, "-m", "xdc_jax", "convert", *args],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.getcwd()},
        )

    done = xdc("--weights=a.pth", "--out=encoder")
    assert done.returncode == 0, done.stderr
    assert "classifier of 5 classes, from a.pth, SHA-256 " in done.stdout
    done = xdc("--weights=encoder", "--to=torch", "--out=b.pth")
    assert done.returncode == 0, done.stderr
    assert (
        torch_files.read(tmp_path / "b.pth").keys()
        == torch_files.read(tmp_path / "a.pth").keys()
    )
    failed = xdc("--weights=a.pth", "--out=encoder")
    assert failed.returncode == 2
    assert "exists already" in failed.stderr


def test_bad_clips_for_an_encoder(tmp_path):
    encoder = load_encoder(save(release(**SMALL), tmp_path / "a.pth"))
    clips = rgb((1, 4, 16, 16))
    assert encoder(clips).shape == (1, encoder.feature_dim)
    assert encoder(jax.numpy.asarray(clips)).shape == (1, encoder.feature_dim)
    with pytest.raises(UserError, match="found shape"):
        encoder(clips[0])
    with pytest.raises(UserError, match="found shape"):
        encoder(clips.transpose(0, 4, 1, 2, 3))
    with pytest.raises(UserError, match="found float32, expected uint8"):
        encoder(clips.astype(np.float32) / 255)
