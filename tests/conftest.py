"""Eight CPU devices for every test, and clips that live in memory."""

import os

# Compiling is most of what the tests do: without LLVM's optimisations it takes a third
# of the time, and the tests check results, not speed.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0 "
    "--xla_llvm_disable_expensive_passes=true",
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("NO_GCE_CHECK", "true")  # no test runs on Google Cloud

from pathlib import Path

import jax
import pytest

from tests.arrays import ArrayClips
from xdc_jax import parallel
from xdc_jax.config import pretrain_config

REAL_DATA = Path(__file__).parent.parent.parent / "shared" / "data"


@pytest.fixture(scope="session")
def real_data():
    """The folder of real media files; skips where it is missing."""
    if not REAL_DATA.is_dir():
        pytest.skip("needs the real data in ../shared/data, which is not here")
    return REAL_DATA


@pytest.fixture(scope="session")
def one_device():
    return parallel.make_mesh(jax.devices()[:1])


@pytest.fixture(scope="session")
def eight_devices():
    return parallel.make_mesh(jax.devices()[:8])


@pytest.fixture
def tiny_config():
    return make_tiny_config()


def make_tiny_config():
    """A config whose run on `tiny_clips` takes seconds."""
    config = pretrain_config()
    config.dtype = "float32"
    for model in (config.video_model, config.audio_model):
        model.width, model.stage_sizes = 4, (1, 1, 1, 1)
    for modality in ("video", "audio", "joint"):
        config.clustering[f"k_{modality}"] = 5
    config.iterations, config.epochs, config.batch_size = 2, 2, 16
    config.clips_per_record = 1
    config.log_every_steps = 1
    return config


@pytest.fixture
def tiny_clips():
    return ArrayClips(num_train=72, num_test=24)
