import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from xdc_jax.training.feed import AHEAD, Feed, prefetch


def batches(count, fail_at=None, delay_s=0.0):
    for i in range(count):
        if i == fail_at:
            raise ValueError(f"batch {i} is broken")
        time.sleep(delay_s)
        yield {"video": np.full((16, 2), i), "clip_id": np.arange(16), "other": None}


def test_batches_come_in_order_split_over_the_devices(eight_devices):
    found = list(prefetch(batches(5), ("video", "clip_id"), eight_devices))
    assert [int(inputs["video"][0, 0]) for _, inputs in found] == [0, 1, 2, 3, 4]
    for batch, inputs in found:
        assert inputs.keys() == {"video", "clip_id"}
        assert len(inputs["video"].sharding.device_set) == 8
        np.testing.assert_array_equal(inputs["video"], batch["video"])


def test_an_error_comes_in_the_place_of_its_batch(eight_devices):
    found = prefetch(batches(9, fail_at=3), ("video",), eight_devices)
    assert [int(next(found)[1]["video"][0, 0]) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="batch 3 is broken"):
        next(found)


def test_only_a_few_batches_are_fetched_ahead_and_stopping_ends_the_thread(one_device):
    fetched = []

    def counted():
        for i, batch in enumerate(batches(100)):
            fetched.append(i)
            yield batch

    threads = threading.active_count()
    found = prefetch(counted(), ("video",), one_device)
    next(found)
    time.sleep(0.2)
    assert len(fetched) <= AHEAD + 1
    found.close()
    assert threading.active_count() == threads


def test_the_wait_is_the_share_of_time_without_a_batch(one_device):
    """Data of 50 ms a batch and steps of no time; then the other way round."""
    feed = Feed(batches(10, delay_s=0.05), ("video",), one_device)
    for inputs in feed:
        feed.stepped(jax.block_until_ready(jnp.sum(inputs["video"])))
    assert feed.timing(16)["data_wait_share"] > 0.7
    feed = Feed(batches(10), ("video",), one_device)
    for inputs in feed:
        time.sleep(0.05)
        feed.stepped(jax.block_until_ready(jnp.sum(inputs["video"])))
    assert feed.timing(16)["data_wait_share"] < 0.3
    assert 0 < feed.timing(16)["clips_per_s"] < 16 / 0.05
