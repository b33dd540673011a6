"""`xdc plan`: its schedule, what it refuses, and the out-of-memory message."""

import pytest

from xdc_jax import plan
from xdc_jax.config import pretrain_config
from xdc_jax.errors import UserError
from xdc_jax.planning import chips, programs, schedule


def test_schedule_counted_by_hand():
    config = pretrain_config()
    config.update(batch_size=64, clips_per_record=8, held_out=0.1)
    config.update(iterations=3, epochs=5)
    found = schedule.of_run(config, 10_000)
    assert found.steps_per_epoch == 8 * 9_000 // 64
    assert found.training_steps == 3 * 5 * 1_125


def test_a_topology_is_of_a_known_generation():
    assert chips.of_topology("v5e:4x4").hbm_bytes_per_s == 819e9
    with pytest.raises(UserError, match="v5e"):
        chips.of_topology("v7:4x4")


def test_prices():
    assert plan.price(["v5e=1.2", "3"], "v5e:4x4") == 1.2
    assert plan.price(["v5e=1.2", "3"], "v4:2x2x4") == 3
    assert plan.price([], "v4:2x2x4") is None
    with pytest.raises(UserError, match="cheap"):
        plan.price(["v5e=cheap"], "v5e:4x4")


def test_bytes_of_the_out_of_memory_message():
    message = "RESOURCE_EXHAUSTED: Ran out of memory. Used 20.50G of 15.75G hbm."
    assert programs.out_of_memory(message) == (20.5 * 2**30, 15.75 * 2**30)
    assert programs.out_of_memory("something else") == (None, None)
