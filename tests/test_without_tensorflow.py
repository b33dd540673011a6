"""xdc_jax works where there is no TensorFlow: accelerator machines may have none."""

import subprocess
import sys

SCRIPT = """
import sys

from importlib.machinery import PathFinder

find_spec = PathFinder.find_spec

def find_nothing_of_tensorflow(name, path=None, target=None):
    missing = {"tensorflow", "tensorflow_datasets", "tensorflow_io"}
    return None if name.split(".")[0] in missing else find_spec(name, path, target)

PathFinder.find_spec = find_nothing_of_tensorflow
import tests.conftest, jax, xdc_jax
from tests.arrays import ArrayClips
from xdc_jax import parallel
from xdc_jax.pretrain import Pretraining

config = tests.conftest.make_tiny_config()
config.iterations = config.epochs = 1
clips = ArrayClips(num_train=20, num_test=8)
mesh = parallel.make_mesh(jax.devices()[:1])
row = Pretraining(config, clips, sys.argv[1], mesh).run()
assert row["video_probe"] is not None

from tests.test_finetune import make_config
from xdc_jax import finetune

config = make_config(epochs=1, batch_size=8)
(row,) = finetune.finetune(config, clips, None, sys.argv[1] + "/labels", mesh=mesh)
assert 0 <= row["video_top1"] <= 1
assert "tensorflow" not in sys.modules
"""


def test_import_and_training_on_arrays(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
