r"""Training and k-means on one GPU: this project against PyTorch, the same in one run.

Examples:
  python -m benchmarks.gpu --save=runs/clips.npz --data=runs/input_pipeline/prepared
  pip install torch==2.13.0
  python -m benchmarks.gpu --clips=runs/clips.npz

The first command needs TensorFlow and no GPU: it writes a few batches of clips from a
prepared folder, as `xdc pretrain` feeds them. The second one needs JAX and PyTorch
built for the GPU. It trains with the config unchanged (full-size encoders, bfloat16,
XDC: each encoder learns the other's labels) on those batches, held in memory, and in
turn PyTorch: the same networks and sizes, channels-last-3d, bfloat16 autocast,
torch.compile, SGD with momentum. Clips per second, share of the peak by the FLOPs that
XLA counts (both), and the loss at the start and the end, which has to fall. Then
k-means of 1,048,576 x 512 features, k = 256: seconds of an update of the centroids.
Where there is no GPU it says what it would run; --any_device does it nevertheless.
"""

import os
import time

import numpy as np
from absl import app, flags
from ml_collections import config_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", "configs/xdc_kinetics.py", "File with get_config(arg), as `xdc pretrain`."
)
SAVE = flags.DEFINE_string("save", None, "File for batches of clips; then --data too.")
DATA = flags.DEFINE_string("data", None, "Folder that `xdc prepare` wrote.")
CLIPS = flags.DEFINE_string("clips", None, "File that --save wrote.")
BATCH = flags.DEFINE_integer("batch_size", 32, "Clips per step.", 1)
BATCHES = flags.DEFINE_integer("batches", 4, "Different batches in memory.", 1)
STEPS = flags.DEFINE_integer("steps", 30, "Timed steps.", 1)
WARM_UP = flags.DEFINE_integer("warm_up", 5, "Steps before.", 1)
ROWS = flags.DEFINE_integer("rows", 1_048_576, "Of k-means.", 1)
CLUSTERS = flags.DEFINE_integer("k", 256, "Of k-means.", 1)
# NVIDIA's data sheets: H100 SXM and H200, bfloat16 without sparsity.
PEAK = flags.DEFINE_float("peak_tflops", 989.0, "Of the GPU, bfloat16.")
ANY = flags.DEFINE_bool("any_device", False, "Also where there is no GPU.")

DIM, UPDATES, RATE, MOMENTUM = 512, 10, 0.01, 0.9


def save_batches(config) -> None:
    """Writes the first batches of an epoch."""
    from data_pipelines import shards
    from data_pipelines.clips import ClipData, ClipSpec

    data = ClipData(shards.open_prepared(DATA.value), ClipSpec(**config.clip), 0)
    draws = data.usable("train").astype(int) * config.clips_per_record
    batches = data.train_batches("train", batch_size=BATCH.value, epoch=0, draws=draws)
    found = [batch for batch, _ in zip(batches, range(BATCHES.value), strict=False)]
    arrays = {key: np.stack([b[key] for b in found]) for key in ("video", "audio")}
    np.savez(SAVE.value, **arrays)
    shapes = {key: array.shape for key, array in arrays.items()}
    print(f"{SAVE.value}: {shapes}")


def read_batches(config) -> dict[str, np.ndarray]:
    """Returns `video` [batches, b, t, h, w, 3] and `audio` [batches, b, f, m, 1]."""
    if CLIPS.value:
        with np.load(CLIPS.value, allow_pickle=False) as arrays:
            return {key: arrays[key] for key in ("video", "audio")}
    print("no --clips: random pictures and sounds\n")
    rng, clip = np.random.default_rng(0), config.clip
    first = (BATCHES.value, BATCH.value)
    video = (*first, clip.num_frames, clip.crop_size, clip.crop_size, 3)
    audio = (*first, clip.mel_frames, clip.mel_bins, 1)
    return {
        "video": rng.integers(0, 256, video, np.uint8),
        "audio": rng.standard_normal(audio, np.float32),
    }


def train_ours(config, batches, labels) -> tuple[float, float, list[float]]:
    """Returns clips/s, TFLOP of a step, and the losses of all steps."""
    import jax

    from xdc_jax import parallel
    from xdc_jax.clustering import targets
    from xdc_jax.training import optimizer, state, steps

    mesh = parallel.make_mesh(jax.devices()[:1])
    plan = targets.make_plan(config.method, config.same_modality)
    networks, initial = state.create(config, plan)
    k = {"video": config.clustering.k_audio, "audio": config.clustering.k_video}
    classes = {"video": {"audio": k["video"]}, "audio": {"video": k["audio"]}}
    now = state.reset_heads(initial, networks, classes, config, 0)
    now = parallel.replicate(now, mesh)
    step = steps.compile_train_step(mesh, networks, optimizer.make(config.optimizer))
    tables = {"audio": labels["video"].ravel(), "video": labels["audio"].ravel()}
    tables = parallel.replicate(tables, mesh)
    rates = {name: dict.fromkeys(("body", "head"), np.float32(RATE)) for name in k}
    count, size = batches["video"].shape[:2]
    fed = []
    for i in range(count):
        ids = np.arange(i * size, (i + 1) * size, dtype=np.int32)
        batch = {key: batches[key][i] for key in ("video", "audio")}
        fed.append(parallel.shard_batch({**batch, "clip_id": ids}, mesh))
    compiled = step.lower(now, fed[0], tables, rates).compile()
    cost = compiled.cost_analysis()
    losses = []
    for i in range(WARM_UP.value + STEPS.value):
        if i == WARM_UP.value:
            jax.block_until_ready(now)
            start = time.perf_counter()
        now, metrics = compiled(now, fed[i % count], tables, rates)
        losses.append(sum(v for key, v in metrics.items() if key.startswith("loss")))
    jax.block_until_ready(now)
    seconds = time.perf_counter() - start
    clips_per_s = STEPS.value * size / seconds
    return clips_per_s, cost["flops"] / 1e12, [float(loss) for loss in losses]


def train_torch(config, batches, labels) -> tuple[float, list[float]]:
    """Returns clips/s and the losses of all steps of PyTorch."""
    import torch

    from tests.weights.torch_release import AudioResNet, VideoResNet
    from xdc_jax.training.steps import RGB_MEAN, RGB_STD

    torch.backends.cudnn.benchmark = True  # as XLA, which tries its convolutions
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    video, audio = config.video_model, config.audio_model
    networks = {
        "video": VideoResNet(True, video.width, tuple(video.stage_sizes)),
        "audio": AudioResNet(False, audio.width, tuple(audio.stage_sizes)),
    }
    parts = {}
    for name, network in networks.items():
        formats = {"video": torch.channels_last_3d, "audio": torch.channels_last}
        network.to(device, memory_format=formats[name])
        head = torch.nn.Linear(
            8 * config[f"{name}_model"].width, int(labels[name].max()) + 1
        ).to(device)
        parts[name] = (torch.compile(network), head)
    parameters = [p for part in parts.values() for m in part for p in m.parameters()]
    sgd = torch.optim.SGD(parameters, RATE, MOMENTUM, weight_decay=1e-4)
    mean, std = (
        torch.tensor(x, device=device).view(1, 3, 1, 1, 1) for x in (RGB_MEAN, RGB_STD)
    )
    fed = []
    for i in range(len(batches["video"])):
        inputs = {
            "video": torch.tensor(np.moveaxis(batches["video"][i], -1, 1)),
            "audio": torch.tensor(np.moveaxis(batches["audio"][i], -1, 1)),
        }
        target = {name: torch.tensor(labels[name][i]).long() for name in parts}
        fed.append(
            tuple(
                {key: value.to(device) for key, value in each.items()}
                for each in (inputs, target)
            )
        )
    losses = []
    for i in range(WARM_UP.value + STEPS.value):
        if i == WARM_UP.value:
            _wait(torch)
            start = time.perf_counter()
        inputs, target = fed[i % len(fed)]
        seen = {
            "video": (inputs["video"].float() / 255 - mean) / std,
            "audio": inputs["audio"],
        }
        seen["video"] = seen["video"].contiguous(memory_format=torch.channels_last_3d)
        loss = 0.0
        with torch.autocast(device.type, torch.bfloat16):
            features = {name: part[0](seen[name]) for name, part in parts.items()}
        for name, (_, head) in parts.items():
            logits = head(features[name].float())
            loss = loss + torch.nn.functional.cross_entropy(logits, target[name])
        sgd.zero_grad(set_to_none=True)
        loss.backward()
        sgd.step()
        losses.append(loss.detach())
    _wait(torch)
    seconds = time.perf_counter() - start
    clips_per_s = STEPS.value * batches["video"].shape[1] / seconds
    return clips_per_s, [float(loss) for loss in losses]


def _wait(torch) -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def kmeans_seconds() -> float:
    """Returns the seconds of one update of the centroids."""
    import jax

    from xdc_jax.clustering import kmeans

    key = jax.random.key(0)
    x = jax.random.normal(key, (ROWS.value, DIM))
    init = np.asarray(x[: CLUSTERS.value])
    taken = []
    for iters in (1, 1 + UPDATES):
        for _ in range(2):  # the first one compiles
            start = time.perf_counter()
            kmeans.fit(x, CLUSTERS.value, seed=0, tol=0, init=init, max_iters=iters)
        taken.append(time.perf_counter() - start)
    return (taken[1] - taken[0]) / UPDATES


def main(_) -> None:
    """Runs everything and prints the table."""
    config = CONFIG.value
    if SAVE.value:
        save_batches(config)
        return
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # PyTorch needs memory too
    import jax

    if jax.default_backend() != "gpu" and not ANY.value:
        print(
            f"No GPU here. On one: {STEPS.value} steps of {config.method}, "
            f"{BATCH.value} clips of {config.clip.num_frames}x{config.clip.crop_size}x"
            f"{config.clip.crop_size} each, {config.dtype}, by xdc_jax and by PyTorch; "
            f"k-means of {ROWS.value:,} x {DIM}, k = {CLUSTERS.value}."
        )
        raise SystemExit(1)
    batches = read_batches(config)
    size = batches["video"].shape[:2]
    rng = np.random.default_rng(1)
    k = {"video": config.clustering.k_audio, "audio": config.clustering.k_video}
    labels = {name: rng.integers(0, k[name], size).astype(np.int32) for name in k}
    for name in k:
        labels[name][0, 0] = k[name] - 1  # a head of k classes
    ours, tflop, losses = train_ours(config, batches, labels)
    theirs, their_losses = train_torch(config, batches, labels)
    print(f"{jax.devices()[0].device_kind}; {size[1]} clips per step\n")
    print("| | clips/s | of PyTorch | share of peak | loss, first and last epoch |")
    print("| --- | --- | --- | --- | --- |")
    for name, clips_per_s, found in (
        ("xdc_jax", ours, losses),
        ("PyTorch", theirs, their_losses),
    ):
        share = clips_per_s / size[1] * tflop / PEAK.value
        first, last = np.mean(found[: size[0]]), np.mean(found[-size[0] :])
        print(
            f"| {name} | {clips_per_s:.1f} | {clips_per_s / theirs:.2f} | {share:.3f} "
            f"| {first:.3f}, {last:.3f} |"
        )
    print(
        f"\nk-means, {ROWS.value:,} x {DIM}, k = {CLUSTERS.value}: "
        f"{1e3 * kmeans_seconds():.1f} ms per update"
    )
    if not losses[-1] < losses[0]:
        raise SystemExit("the loss of xdc_jax has not fallen")


if __name__ == "__main__":
    app.run(main)
