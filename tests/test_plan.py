"""xdc plan: its figures against counts by hand, and what it says of bad requests."""

import json
import os
import subprocess
import sys

import jax
import pytest

from configs import xdc_kinetics
from tests.planning import flops_by_hand
from xdc_jax import plan
from xdc_jax.errors import UserError
from xdc_jax.planning import chips, estimate, programs, schedule, tables
from xdc_jax.planning.programs import DoesNotFit, Program

CONFIG = "configs/xdc_kinetics.py"
# One stage, few pixels: compiles in seconds.
SMALL = (
    "video_model.stage_sizes=1,audio_model.stage_sizes=1,clip.num_frames=4,"
    "clip.crop_size=16,clip.mel_frames=32,clip.mel_bins=16"
)
WIDE = f"{SMALL},video_model.width=128,audio_model.width=128,batch_size=32"
NARROW = f"{SMALL},video_model.width=4,audio_model.width=4"


def run(config, topology, num_clips, *arguments):
    """Runs the verb as a user does, outside of the tests' own JAX."""
    settings = ("JAX_PLATFORMS", "XLA_FLAGS")
    return subprocess.run(
        [
            *(sys.executable, "-m", "xdc_jax", "plan"),
            f"--config={CONFIG}:{config}",
            f"--topology={topology}",
            f"--num_clips={num_clips}",
            *arguments,
        ],
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if key not in settings},
    )


def program(hbm_needed, **figures):
    """A program of which only some figures matter."""
    figures = {"hbm_needed": hbm_needed, **figures}
    return Program(**{**dict.fromkeys(Program.__dataclass_fields__, 0), **figures})


def per_clip(config, forward):
    """FLOPs of a clip by hand, forward or of a training step without the heads."""
    clip, models = config.clip, (config.video_model, config.audio_model)
    encoders = [
        flops_by_hand.r2plus1d(
            clip.num_frames, clip.crop_size, models[0].width, models[0].stage_sizes
        ),
        flops_by_hand.audio_resnet(
            clip.mel_frames, clip.mel_bins, models[1].width, models[1].stage_sizes
        ),
    ]
    if forward:
        return sum(total for total, _ in encoders)
    return flops_by_hand.training_step(*encoders)


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """What the verb prints and writes of a small job."""
    pytest.importorskip("libtpu")
    out = tmp_path_factory.mktemp("plan") / "plan.json"
    rate = "--price_per_chip_hour=2,v5e=1.5"
    done = run(WIDE, "v5e:2x2", 10_000, f"--out={out}", rate)
    assert done.returncode == 0, done.stderr
    return done, json.loads(out.read_text())["slices"][0]


def test_compiled_flops_agree_with_a_count_by_hand(planned):
    _, found = planned
    config = xdc_kinetics.get_config(WIDE)
    for key, forward in (("train_step", False), ("extract_step", True)):
        by_hand = 8 * per_clip(config, forward)  # clips per core
        assert found[key]["flops"] == pytest.approx(by_hand, rel=0.02)
        assert found[key]["network_flops"] == pytest.approx(by_hand, rel=0.001)


def test_memory_and_traffic(planned):
    _, found = planned
    config = xdc_kinetics.get_config(WIDE)
    step, chip = found["train_step"], chips.CHIPS["v5e"]
    networks, state = programs._initial_state(config, programs.targets.make_plan("xdc"))
    params = [encoder.params for encoder in state.encoders.values()]
    gradient_bytes = 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
    batch = programs.batch_bytes(config)
    assert batch == 4 * 16 * 16 * 3 + 32 * 16 * 4 + 4
    assert step["hbm_needed"] > 2 * gradient_bytes + 8 * batch  # parameters, momentum
    # Parameters and momentum are read and written at least.
    assert 4 * gradient_bytes < step["hbm_bytes"] < step["reported_bytes"]
    assert step["unpadded_bytes"] <= step["hbm_bytes"]
    # The gradients of all encoders are summed, and little else.
    assert gradient_bytes < step["collective_bytes"] < 1.05 * gradient_bytes
    assert step["sent_bytes"] == pytest.approx(1.5 * step["collective_bytes"])
    assert step["roofs_s"] == pytest.approx(
        {
            "compute": step["flops"] / 197e12,
            "memory": step["hbm_bytes"] / 819e9,
            "collectives": step["sent_bytes"] / 200e9,
        }
    )
    assert step["roofline_s"] == max(step["roofs_s"].values())
    assert found["extract_step"]["collective_bytes"] == 0
    assert found["headroom_bytes"] == chip.hbm_bytes - step["hbm_needed"] - 16 * batch
    assert set(networks) == {"video", "audio"}


def test_kmeans_is_counted_per_update(planned):
    _, found = planned
    rows = 16 * 2 * 320  # 10,000 in 16 lanes of 2 blocks
    for name, k in (("video", 64), ("audio", 128)):
        update = found["kmeans_update"][name]
        assert update["flops"] == 4 * rows / 4 * k * 128
        assert update["flops_passes"] == 6
        assert update["collective_bytes"] == pytest.approx(k * 129 * 4, rel=0.01)
    assert found["feature_bytes"] == 10_000 * 2 * 128 * 4
    assert found["label_bytes"] == 10_000 * 2 * 4


def test_hours_and_price(planned):
    done, found = planned
    steps = 8 * 9500 // 32
    assert found["schedule"]["steps_per_epoch"] == steps == 2375
    train_s = found["train_step"]["roofline_s"]
    kmeans_s = sum(each["roofline_s"] for each in found["kmeans_update"].values())
    extract_s = found["extract_step"]["roofline_s"]
    seconds = 50 * steps * train_s + 600 * kmeans_s + (6 * 313 + 50 * 16) * extract_s
    assert found["hours"]["total"] == pytest.approx(seconds / 3600)
    assert found["price"] == pytest.approx(4 * 1.5 * seconds / 3600)
    assert found["clips_per_s"] == pytest.approx(32 / train_s)
    assert (
        f"| clips/s in all                       | {32 / train_s:,.0f}" in done.stdout
    )
    assert "bounds, not predictions" in done.stdout
    noise = [line for line in done.stderr.splitlines() if " v5e:2x2: " not in line]
    assert all("wrote" in line for line in noise), noise


def test_out_of_memory_is_an_answer(tmp_path):
    pytest.importorskip("libtpu")
    out = tmp_path / "plan.json"
    config = f"{NARROW},batch_size=16777216,method=supervised"
    done = run(config, "v6e:2x2", 16_777_216, f"--out={out}")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(out.read_text())["slices"]
    step, available = row["train_step"], chips.CHIPS["v6e"].hbm_bytes
    assert not step["fits"]
    assert step["hbm_needed"] > step["hbm_available"] == pytest.approx(available)
    assert row["hours"] is row["price"] is row["headroom_bytes"] is None
    assert f" of {available / chips.GIB:.2f} |" in done.stdout
    assert "does not fit: needs " in done.stdout


def test_slices_side_by_side(eight_devices):
    chip = chips.CHIPS["v5e"]
    fits = program(
        chips.GIB, network_flops=1e12, flops=197e10, flops_passes=1, sent_bytes=4e9
    )
    kmeans = program(chips.GIB, flops=197e9, flops_passes=6)
    steps = schedule.of_run(xdc_kinetics.get_config("method=cdc"), 100_000)
    common = {
        "tpu": programs.Slice("v5e:2x4", chip, eight_devices),
        "clips_per_core": 4,
        "num_clips": 100_000,
        "extract": fits,
        "kmeans": {"joint": kmeans},
        "schedule": steps,
        "ahead_bytes": chips.GIB // 4,
        "feature_bytes": 80_000_000,
        "label_bytes": 400_000,
    }
    found = [
        estimate.Estimate(train=fits, **common),
        estimate.Estimate(
            train=DoesNotFit(20 * chips.GIB, chip.hbm_bytes, 1), **common
        ),
    ]
    text = tables.render(found, 40.0, [2.0, None])
    cells = {}
    for line in text.splitlines():
        if line.startswith("| "):
            name, *values = (cell.strip() for cell in line.strip("|").split("|"))
            cells.setdefault(name, values)
    assert cells["HBM needed, GiB"] == [
        "1.00 of 15.75",
        "does not fit: needs 20.00 of 15.75",
    ]
    assert cells["headroom beside waiting batches, GiB"] == ["14.50", "-"]
    assert cells["compute / memory / collectives, ms"] == ["10 / 0 / 20", "-"]
    assert cells["bound by"] == ["collectives", "-"]
    assert cells["clips/s in all"] == ["1,600", "-"]
    assert cells["host cores to feed it"] == ["40", "-"]
    assert cells["GFLOP"] == ["197 x 6 passes"] * 2
    assert cells["their share on a core, MB"] == ["10.0", "10.0"]
    training = steps.training_steps * 0.02 / 3600
    assert cells["hours of training"] == [f"{training:.3g}", "-"]
    kmeans_hours = 600 * 0.006 / 3600
    assert cells["hours of k-means"] == [f"{kmeans_hours:.3g}", "-"]
    extraction = steps.extraction_steps * 0.02 / 3600
    price = 2 * 8 * (training + kmeans_hours + extraction)
    assert cells["price"] == [f"{price:.2f} at 2 per chip-hour", "-"]


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v5e:3x3", "'v5e:3x3' is no slice"),
        ("v5e:2x4,v9:2x2", "'v9:2x2', expected GENERATION:SHAPE with one of v4"),
        ("v6e:16x16", "256 cores of v6e:16x16 cannot share evenly; use a multiple"),
    ],
)
def test_bad_requests(topology, message):
    pytest.importorskip("libtpu")
    done = run(f"{NARROW},batch_size=96", topology, 1000)
    assert done.returncode == 2, done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_without_libtpu(monkeypatch):
    monkeypatch.setattr(programs.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install libtpu"):
        programs.prepare_environment()


def traced_flops(monkeypatch, mesh, config):
    """FLOPs that the training step and the extraction of a config ask for."""
    monkeypatch.setattr(
        programs,
        "_compile",
        lambda tpu, what, function, arguments: programs.arithmetic.flops(
            function.trace(*arguments).jaxpr
        ),
    )
    tpu = programs.Slice("CPU", chips.CHIPS["v5e"], mesh)
    batch_size = 2 * mesh.size
    train = programs.train_step(tpu, config, 1000, batch_size)
    return train, programs.extract_step(tpu, config, batch_size)


def test_full_size_flops_agree_with_a_count_by_hand(monkeypatch, eight_devices):
    config = xdc_kinetics.get_config()
    train, extract = traced_flops(monkeypatch, eight_devices, config)
    assert extract == 2 * per_clip(config, forward=True)
    assert train == pytest.approx(2 * per_clip(config, forward=False), rel=1e-4)


def test_convolutions_on_a_tpu_are_not_folded(monkeypatch, eight_devices):
    texts = {}

    def lower(tpu, what, function, arguments):
        for platform in ("cpu", "tpu"):
            lowered = function.trace(*arguments).lower(lowering_platforms=(platform,))
            lines = lowered.as_text().splitlines()
            texts[platform] = [x for x in lines if "stablehlo.convolution" in x]

    monkeypatch.setattr(programs, "_compile", lower)
    tpu = programs.Slice("CPU", chips.CHIPS["v5e"], eight_devices)
    programs.extract_step(tpu, xdc_kinetics.get_config(NARROW), 8)
    spatial = "x4x16x16x3xbf16>"  # the stem sees all frames, not frames as a batch
    assert any(spatial in line for line in texts["tpu"])
    assert not any(spatial in line for line in texts["cpu"])
    assert all(line.count("bf16>") == 3 for line in texts["tpu"])


def test_schedule_by_hand():
    config = xdc_kinetics.get_config("batch_size=64,iterations=3,epochs=2")
    config.clustering.num_restarts = 2
    found = schedule.of_run(config, 1010)
    # round(50.5) = 50 are held out; 8 x 960 / 64 = 120 steps.
    assert found == schedule.Schedule(
        steps_per_epoch=120,
        epochs=6,
        training_steps=720,
        extractions=4,
        extraction_steps=4 * 16 + 6 * 1,
        kmeans_updates={"video": 800, "audio": 800},
    )


def test_schedule_of_minibatches_and_labels():
    config = xdc_kinetics.get_config("clustering.batch_size=300,method=cdc")
    found = schedule.of_run(config, 1010)
    assert found.kmeans_updates == {"joint": 6 * 100 * 4}
    config.method = "supervised"
    found = schedule.of_run(config, 1010)
    assert (found.extractions, found.epochs, found.kmeans_updates) == (2, 50, {})


def test_too_few_clips():
    with pytest.raises(UserError, match="--num_clips is 30: an epoch has fewer"):
        schedule.of_run(xdc_kinetics.get_config(), 30)


@pytest.mark.parametrize(
    ("fixed", "per_clip", "says", "largest"),
    [
        # GiB, with 0.00059 of a clip in two waiting batches:
        (1.0, 0.0390, True, 368),  # (15.75 - 1) / 0.03959 = 372.6
        (1.0, 0.0390, False, 368),
        (1.0, 2.0, True, 4),  # powers of two below 8
        (1.0, 14.0, True, 1),
        (1.0, 20.0, True, 0),
        (1.0, 20.0, False, 0),
        (15.0, 0.001, True, 464),  # 471.5
    ],
)
def test_search_for_the_largest_batch(
    monkeypatch, eight_devices, fixed, per_clip, says, largest
):
    chip = chips.CHIPS["v5e"]
    tried = []

    def train_step(tpu, config, num_clips, batch_size):
        clips, left = divmod(batch_size, tpu.mesh.size)
        assert not left
        tried.append(clips)
        needed = (fixed + per_clip * clips) * chips.GIB
        if needed <= chip.hbm_bytes:
            return program(needed)
        return DoesNotFit(needed if says else None, chip.hbm_bytes, 0.0)

    monkeypatch.setattr(programs, "train_step", train_step)
    tpu = programs.Slice("v5e:2x4", chip, eight_devices)
    config = xdc_kinetics.get_config()
    first = train_step(tpu, config, 1000, 16 * 8)
    found = estimate.largest_batch(tpu, config, 1000, 16, first)
    assert found == largest
    assert len(set(tried)) == len(tried), tried
    assert len(tried) <= (6 if says else 9), tried


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Ran out of memory in memory space hbm. Used 20.16G of 15.75G hbm.", 20.16),
        ("temporaries (20.16G) exceeds available HBM (15.75G). HLO module: x", 20.16),
        ("Used 20643.84M of 15.75G hbm. Exceeded hbm capacity by 4.41G.", 20.16),
    ],
)
def test_messages_of_the_compiler(message, expected):
    needed, available = programs.out_of_memory(f"RESOURCE_EXHAUSTED: {message}")
    assert needed / chips.GIB == pytest.approx(expected)
    assert available == 15.75 * chips.GIB


def test_other_messages_of_the_compiler():
    assert programs.out_of_memory("RESOURCE_EXHAUSTED: no more") == (None, None)


@pytest.mark.parametrize(
    ("given", "topology", "expected"),
    [
        ([], "v4:2x2x1", None),
        (["3.2"], "v4:2x2x1", 3.2),
        (["v5e=1.2", "v4=3.2"], "v4:2x2x1", 3.2),
        (["v5e=1.2"], "v4:2x2x1", None),
        (["v5e=1.2", "2"], "v4:2x2x1", 2.0),
    ],
)
def test_price(given, topology, expected):
    assert plan.price(given, topology) == expected


@pytest.mark.parametrize("item", ["cheap", "v5e=", "v9=1", "-1", "v4=-1", "nan"])
def test_bad_price(item):
    with pytest.raises(UserError, match="expected a number"):
        plan.price([item], "v4:2x2x1")
