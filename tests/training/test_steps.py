import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xdc_jax import parallel
from xdc_jax.clustering import targets
from xdc_jax.training import optimizer, state, steps


def run_steps(config, clips, mesh, num_steps):
    """Returns the metrics of each step and the final state."""
    plan = targets.make_plan(config.method)
    networks, train_state = state.create(config, plan)
    classes = {
        encoder: dict.fromkeys(heads, 5) for encoder, heads in plan.heads.items()
    }
    train_state = state.reset_heads(train_state, networks, classes, config, 0)
    train_state = parallel.replicate(train_state, mesh)
    n = clips.num_clips("train")
    labels = {name: clips.labels("train").copy() for name in plan.encoders}
    labels["video"][::7] = -1  # clips without a pseudo-label
    labels = parallel.replicate(labels, mesh)
    step = steps.compile_train_step(mesh, networks, optimizer.make(config.optimizer))
    rate = {"body": jnp.float32(0.02), "head": jnp.float32(0.02)}
    rates = dict.fromkeys(plan.encoders, rate)
    metrics = []
    epoch = 0
    while len(metrics) < num_steps:
        batches = clips.train_batches(
            "train", batch_size=16, epoch=epoch, draws=np.ones(n, np.int32)
        )
        for batch in batches:
            inputs = {key: batch[key] for key in ("video", "audio", "clip_id")}
            inputs = parallel.shard_batch(inputs, mesh)
            train_state, values = step(train_state, inputs, labels, rates)
            metrics.append(jax.device_get(values))
        epoch += 1
    return metrics[:num_steps], train_state


@pytest.mark.parametrize("method", ["xdc", "mdc"])
def test_eight_devices_with_sync_bn_train_as_one(
    method, tiny_config, tiny_clips, one_device, eight_devices
):
    tiny_config.method, tiny_config.sync_bn = method, True
    # Two stages: with four, BatchNorm sees 16 values per channel at the end, and such a
    # net amplifies rounding a hundredfold in 20 steps, on whatever devices.
    tiny_config.video_model.stage_sizes = tiny_config.audio_model.stage_sizes = (1, 1)
    one, state_one = run_steps(tiny_config, tiny_clips, one_device, 20)
    eight, state_eight = run_steps(tiny_config, tiny_clips, eight_devices, 20)
    for a, b in zip(one, eight, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            if key.startswith("loss"):
                np.testing.assert_allclose(a[key], b[key], rtol=1e-4)
    assert one[-1]["loss/video/audio"] < one[0]["loss/video/audio"]
    assert int(state_one.step) == int(state_eight.step) >= 20


def test_without_sync_bn_devices_differ_from_one(
    tiny_config, tiny_clips, one_device, eight_devices
):
    one, _ = run_steps(tiny_config, tiny_clips, one_device, 3)
    eight, final = run_steps(tiny_config, tiny_clips, eight_devices, 3)
    assert abs(one[0]["loss/video/audio"] / eight[0]["loss/video/audio"] - 1) > 1e-4
    for leaf in jax.tree.leaves(final.encoders["video"].batch_stats):
        shards = [np.asarray(shard.data) for shard in leaf.addressable_shards]
        for shard in shards[1:]:
            np.testing.assert_array_equal(shard, shards[0])


def test_loss_and_accuracy_equal_numpy(tiny_config, tiny_clips, one_device):
    """The loss of the first step, from the features of a plain forward pass."""
    plan = targets.make_plan("sdc")
    networks, train_state = state.create(tiny_config, plan)
    classes = {"video": {"video": 5}, "audio": {"audio": 5}}
    train_state = state.reset_heads(train_state, networks, classes, tiny_config, 0)
    batch = next(iter(tiny_clips.eval_batches("train", batch_size=16)))
    inputs = {key: batch[key] for key in ("video", "audio", "clip_id")}
    labels = np.random.default_rng(0).integers(-1, 5, 72).astype(np.int32)
    encoder = train_state.encoders["video"]
    features, _ = networks["video"].apply(
        encoder.params,
        encoder.batch_stats,
        steps.normalize_kinetics(jnp.asarray(batch["video"])),
        True,
    )
    head = jax.tree.map(np.float64, encoder.heads["video"])
    logits = np.float64(features) @ head["kernel"] + head["bias"]
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    target = labels[:16]
    rows = np.flatnonzero(target >= 0)

    step = steps.compile_train_step(
        one_device, networks, optimizer.make(tiny_config.optimizer)
    )
    tables = {"video": labels, "audio": labels}
    rate = {"body": jnp.float32(0), "head": jnp.float32(0)}
    zero = {"video": rate, "audio": rate}
    _, metrics = step(
        parallel.replicate(train_state, one_device),
        parallel.shard_batch(inputs, one_device),
        parallel.replicate(tables, one_device),
        zero,
    )
    np.testing.assert_allclose(
        metrics["loss/video/video"], -log_probs[rows, target[rows]].mean(), rtol=1e-4
    )
    np.testing.assert_allclose(
        metrics["accuracy/video/video"],
        (logits.argmax(1)[rows] == target[rows]).mean(),
        rtol=1e-6,
    )


def test_video_is_normalised_as_torchvision_does():
    video = np.arange(24, dtype=np.uint8).reshape(1, 1, 2, 4, 3)
    expected = (video / 255 - steps.RGB_MEAN) / steps.RGB_STD
    np.testing.assert_allclose(
        steps.normalize_kinetics(jnp.asarray(video)), expected, rtol=1e-5
    )


def test_video_is_normalised_by_its_own_clip():
    video = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 6, 3), np.uint8)
    video[1] = 17  # a still
    normal = np.asarray(steps.normalize_clip(jnp.asarray(video)))
    flat = video[0].reshape(-1, 3).astype(np.float64)
    expected = (flat - flat.mean(0)) / flat.std(0)
    np.testing.assert_allclose(normal[0].reshape(-1, 3), expected, atol=1e-3)
    np.testing.assert_array_equal(normal[1], 0)


@pytest.mark.parametrize("clips_at_once", [1, 2, 5, 16, 100])
def test_features_are_the_same_a_few_clips_at_a_time(
    tiny_config, tiny_clips, clips_at_once
):
    networks, train_state = state.create(tiny_config, targets.make_plan("sdc"))
    encoders = {
        name: (encoder.params, encoder.batch_stats)
        for name, encoder in train_state.encoders.items()
    }
    batch = next(iter(tiny_clips.eval_batches("train", batch_size=16)))
    inputs = {key: jnp.asarray(batch[key]) for key in ("video", "audio")}

    @functools.partial(jax.jit, static_argnames="values_at_once")
    def extract(values_at_once):
        return steps.extract_step(
            encoders, inputs, networks=networks, values_at_once=values_at_once
        )

    found = extract(clips_at_once * inputs["video"][0].size)
    for name, expected in extract(None).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)
