"""Clips: in which order they come, for training and for evaluation."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines import order
from data_pipelines.clips import ClipData
from tests.clip_records import SMALL, assert_same, collect, one_epoch

# Order.


def test_batches_have_the_shapes_and_types_of_the_design(data):
    batch = next(
        data.train_batches("train", batch_size=8, epoch=0, draws=np.ones(24, int))
    )
    expected = {
        "video": ((8, 2, 12, 12, 3), np.uint8),
        "audio": ((8, 10, 8, 1), np.float32),
        "clip_id": ((8,), np.int32),
        "label": ((8,), np.int32),
        "mask": ((8,), bool),
    }
    assert {k: (v.shape, v.dtype.type) for k, v in batch.items()} == {
        k: (shape, np.dtype(kind).type) for k, (shape, kind) in expected.items()
    }
    np.testing.assert_array_equal(batch["label"], batch["clip_id"] % 2)
    assert batch["mask"].all()


def test_every_record_is_drawn_as_often_as_wanted_in_another_order_each_epoch(data):
    draws = np.arange(24) % 4
    orders = []
    for epoch in range(2):
        epoch_clips = one_epoch(data, epoch, batch_size=6, draws=draws)
        counts = np.bincount(epoch_clips["clip_id"], minlength=24)
        np.testing.assert_array_equal(counts, draws)
        orders.append(epoch_clips["clip_id"])
    assert (orders[0] != orders[1]).any()
    assert (orders[0] != np.sort(orders[0])).any()


def test_the_remainder_is_dropped(data):
    assert len(one_epoch(data, batch_size=10)["clip_id"]) == 20


def test_an_epoch_is_a_function_of_seed_and_epoch(prepared, data):
    first = one_epoch(data, epoch=5)
    assert_same(one_epoch(ClipData(prepared, SMALL, seed=3), epoch=5), first)
    other = one_epoch(ClipData(prepared, SMALL, seed=4), epoch=5)
    assert (other["clip_id"] != first["clip_id"]).any()


def test_an_epoch_continues_at_any_batch(data):
    whole = one_epoch(data, epoch=1, batch_size=6)
    for start in (1, 3):
        rest = one_epoch(data, epoch=1, batch_size=6, start_batch=start)
        assert_same(rest, {k: v[6 * start :] for k, v in whole.items()})
    none = data.train_batches(
        "train", batch_size=6, epoch=1, draws=np.ones(24, int), start_batch=4
    )
    assert list(none) == []


@pytest.mark.parametrize(
    ("start_batch", "batch_size", "counts"),
    [(0, 8, (2, 4)), (1, 8, (8,)), (1, 6, (3,))],
)
def test_the_number_of_processes_changes_nothing(data, start_batch, batch_size, counts):
    alone = one_epoch(data, batch_size=batch_size, start_batch=start_batch)
    for count in counts:
        parts = [
            list(
                data.train_batches(
                    "train",
                    batch_size=batch_size,
                    epoch=0,
                    draws=np.ones(24, int),
                    start_batch=start_batch,
                    process_index=process,
                    process_count=count,
                )
            )
            for process in range(count)
        ]
        assert all(
            len(b["mask"]) == batch_size // count for part in parts for b in part
        )
        together = [
            {key: np.concatenate([rows[key] for rows in step]) for key in step[0]}
            for step in zip(*parts, strict=True)
        ]
        assert_same(collect(together), alone)


def test_a_clip_does_not_depend_on_what_else_is_drawn(data):
    everything = one_epoch(data)
    few = one_epoch(data, batch_size=4, draws=(np.arange(24) % 6 == 1).astype(int))
    assert len(few["clip_id"]) == 4
    for row, clip_id in enumerate(few["clip_id"]):
        (same,) = np.flatnonzero(everything["clip_id"] == clip_id)
        for key in few:
            np.testing.assert_array_equal(few[key][row], everything[key][same])


def test_draws_and_epochs_show_other_clips_of_a_record(data):
    draws = np.zeros(24, int)
    draws[7] = 4
    several = one_epoch(data, batch_size=4, draws=draws)
    looks = {clip.tobytes() for clip in several["video"]}
    sounds = {clip.tobytes() for clip in several["audio"]}
    assert len(looks) == 4
    assert len(sounds) == 4
    draws[7] = 1
    first = one_epoch(data, batch_size=1, draws=draws)["video"][0].tobytes()
    later = one_epoch(data, epoch=1, batch_size=1, draws=draws)["video"][0].tobytes()
    assert first in looks
    assert later not in looks


def test_a_process_reads_only_the_shards_of_its_rows(prepared, monkeypatch):
    """Four shards, four streams: a process of two does without some of the files."""
    # It asks all shards for their size.
    monkeypatch.setattr(order, "shuffle_buffer", lambda *_: 5)
    index = prepared.splits["train"]
    draws = np.ones(24, int)
    streams = order.streams(index.files, index.shard_lengths, draws, 8, (3, 0))
    assert len(streams) == 4
    for process in range(2):
        of_it = streams[2 * process : 2 * process + 2]
        read = {file for stream in of_it for file in stream.files}
        assert len(read) < 4
        files = tuple(file if file in read else "/nowhere" for file in index.files)
        splits = {"train": dataclasses.replace(index, files=files)}
        only = ClipData(dataclasses.replace(prepared, splits=splits), SMALL, seed=3)
        with pytest.raises(Exception, match="nowhere"):
            one_epoch(only)
        which = {"process_index": process, "process_count": 2}
        expected = one_epoch(ClipData(prepared, SMALL, seed=3), **which)
        assert_same(one_epoch(only, **which), expected)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 4), max_size=6), min_size=1, max_size=12),
    st.integers(1, 24),
    st.integers(0, 3),
)
def test_streams_share_out_every_draw_but_the_remainder(shards, batch_size, seed):
    """Against a list of all draws, one by one."""
    lengths = [len(shard) for shard in shards]
    draws = np.array([d for shard in shards for d in shard], int)
    files = [f"shard {i}" for i in range(len(shards))]
    found = order.streams(files, lengths, draws, batch_size, (seed, 0))
    drawn = []
    for stream in found:
        of_stream = []
        for file, first, last in zip(
            stream.files, stream.first, stream.last, strict=True
        ):
            all_of_it = [
                (file, clip, draw)
                for clip, count in enumerate(shards[files.index(file)])
                for draw in range(count)
            ]
            of_stream += all_of_it[first:last]
        drawn.append(of_stream)
    num_batches = draws.sum() // batch_size
    everything = [draw for of_stream in drawn for draw in of_stream]
    assert len(everything) == len(set(everything)) == num_batches * batch_size
    if num_batches:
        assert len({len(of_stream) for of_stream in drawn}) == 1
        assert batch_size % len(found) == 0
    before = order.draws_before(lengths, draws)
    expected = [sum(s[:i]) for s in shards for i in range(len(s))]
    assert before.tolist() == expected


# Evaluation.


def test_evaluation_shows_every_record_once_by_id_and_fills_the_last_batch(data):
    batches = list(data.eval_batches("train", batch_size=10))
    assert [len(b["mask"]) for b in batches] == [10, 10, 10]
    clips = collect(batches)
    np.testing.assert_array_equal(clips["clip_id"][:24], np.arange(24))
    np.testing.assert_array_equal(clips["label"][:24], data.labels("train"))
    np.testing.assert_array_equal(clips["mask"], np.arange(30) < 24)
    np.testing.assert_array_equal(clips["clip_id"][24:], -1)
    np.testing.assert_array_equal(clips["label"][24:], -1)
    assert not clips["video"][24:].any()
    assert not clips["audio"][24:].any()
    assert_same(collect(data.eval_batches("train", batch_size=10)), clips)


def test_evaluation_of_some_records_and_of_nothing_for_a_process_without(data):
    wanted = np.array([23, 2, 11, 5, 17])
    alone = collect(data.eval_batches("train", batch_size=8, clip_ids=wanted))
    np.testing.assert_array_equal(alone["clip_id"][:5], np.sort(wanted))
    assert alone["mask"].sum() == 5
    # Each of four processes has a part of the clips, the last one none.
    parts = [
        collect(
            data.eval_batches(
                "train",
                batch_size=2,
                clip_ids=np.sort(wanted)[2 * i : 2 * i + 2],
                num_batches=1,
            )
        )
        for i in range(4)
    ]
    assert_same({k: np.concatenate([p[k] for p in parts]) for k in alone}, alone)
