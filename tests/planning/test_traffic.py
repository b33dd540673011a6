"""Traffic read from compiled text: snippets counted by hand, and tiny programs."""

import json
import subprocess
import sys

import pytest

from xdc_jax.planning import hlo, traffic

MODULE = """\
HloModule jit_step, is_scheduled=true

%fused_computation.1 (param_0: f32[64,256], param_1: s32[]) -> f32[256] {
  %param_0 = f32[64,256]{1,0:T(8,128)} parameter(0)
  %param_1 = s32[]{:T(128)S(6)} parameter(1)
  %zero = s32[]{:T(128)} constant(0)
  %row = f32[1,256]{1,0:T(1,128)} dynamic-slice(%param_0, %param_1, %zero), \
dynamic_slice_sizes={1,256}
  ROOT %flat = f32[256]{0:T(256)} bitcast(%row)
}

%body (state: (s32[], f32[64,256], f32[256])) -> (s32[], f32[64,256], f32[256]) {
  %state = (s32[]{:T(128)S(6)}, f32[64,256]{1,0:T(8,128)}, /*index=2*/f32[256]{0}) \
parameter(0)
  %i = s32[]{:T(128)S(6)} get-tuple-element(%state), index=0
  %x = f32[64,256]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %one = s32[]{:T(128)S(6)} constant(1)
  %next = s32[]{:T(128)S(6)} add(%i, %one), metadata={op_name="add(x)"}
  %row = f32[256]{0:T(256)} fusion(%x, %i), kind=kLoop, calls=%fused_computation.1
  ROOT %new = (s32[]{:T(128)S(6)}, f32[64,256]{1,0:T(8,128)}, f32[256]{0}) \
tuple(%next, %x, %row)
}

%condition (state: (s32[], f32[64,256], f32[256])) -> pred[] {
  %state = (s32[]{:T(128)S(6)}, f32[64,256]{1,0:T(8,128)}, f32[256]{0}) parameter(0)
  %i = s32[]{:T(128)S(6)} get-tuple-element(%state), index=0
  %limit = s32[]{:T(128)S(6)} constant(5)
  ROOT %less = pred[]{:T(512)S(6)} compare(%i, %limit), direction=LT
}

ENTRY %main (x: f32[64,256], y: bf16[10,64]) -> f32[256] {
  %x = f32[64,256]{1,0:T(8,128)} parameter(0)
  %y = bf16[10,64]{1,0:T(8,128)(2,1)} parameter(1)
  %zero = s32[]{:T(128)S(6)} constant(0)
  %start = (bf16[10,64]{1,0:T(8,128)(2,1)S(1)}, bf16[10,64]{1,0:T(8,128)(2,1)}, \
u32[]{:S(2)}) copy-start(%y)
  %ready = bf16[10,64]{1,0:T(8,128)(2,1)S(1)} copy-done(%start)
  %sum = bf16[10,64]{1,0:T(8,128)(2,1)S(1)} all-reduce(%ready), to_apply=%add
  %init = (s32[]{:T(128)S(6)}, f32[64,256]{1,0:T(8,128)}, f32[256]{0}) \
tuple(%zero, %x, %zero)
  %loop = (s32[]{:T(128)S(6)}, f32[64,256]{1,0:T(8,128)}, f32[256]{0}) while(%init), \
condition=%condition, body=%body
  %last = f32[256]{0:T(256)} get-tuple-element(%loop), index=2
  ROOT %out = f32[256]{0:T(256)} negate(%last)
}
"""
COPIED = 16 * 128 * 2  # [10, 64] of bfloat16 in tiles of 8 x 128
ROW = 256 * 4


def test_entry_loop_and_collective():
    found = traffic.of_program(hlo.parse(MODULE), num_cores=4)
    # A prefetch reads y once; five turns read and write a row; negate one more.
    assert found.hbm_bytes == COPIED + 5 * 2 * ROW + 2 * ROW
    assert found.collective_bytes == 10 * 64 * 2  # without padding
    assert found.sent_bytes == 2 * 3 / 4 * 10 * 64 * 2


def test_without_padding():
    module = traffic.without_padding(hlo.parse(MODULE))
    assert traffic.of_program(module, 4).hbm_bytes == 10 * 64 * 2 + 12 * ROW


def test_main_loop_is_one_turn():
    found = traffic.of_main_loop(hlo.parse(MODULE), 4)
    assert found == traffic.Traffic(2 * ROW, 0, 0)


def test_main_loop_needs_one_loop():
    without = MODULE.replace(" while(%init)", " custom-call(%init)")
    with pytest.raises(ValueError, match="found 0"):
        traffic.of_main_loop(hlo.parse(without), 4)


def test_loop_of_unknown_length_counts_once():
    unknown = MODULE.replace("%limit = s32[]{:T(128)S(6)} constant(5)", "")
    unknown = unknown.replace("compare(%i, %limit)", "compare(%i, %i)")
    found = traffic.of_program(hlo.parse(unknown), 4)
    assert found.hbm_bytes == COPIED + 2 * ROW + 2 * ROW


@pytest.mark.parametrize(
    ("line", "collective", "sent"),
    [
        # operand [10, 64] bfloat16 = 1280 bytes, 4 cores
        ("all-gather(%ready), dimensions={0}", 1280, 3 * 1280),
        ("reduce-scatter(%ready), dimensions={0}", 1280, 960),
        ("all-to-all(%ready), dimensions={0}", 1280, 960),
        ("collective-permute(%ready), source_target_pairs={}", 1280, 1280),
        ("all-reduce-start(%ready), to_apply=%add", 1280, 1920),
        ("negate(%ready)", 0, 0),
    ],
)
def test_kinds_of_collectives(line, collective, sent):
    text = MODULE.replace("all-reduce(%ready), to_apply=%add", line)
    found = traffic.of_program(hlo.parse(text), 4)
    assert (found.collective_bytes, found.sent_bytes) == (collective, sent)


def test_update_in_place_writes_the_slice():
    text = """\
%fused (buffer: f32[64,256], row: f32[1,256], at: s32[]) -> f32[64,256] {
  %buffer = f32[64,256]{1,0:T(8,128)} parameter(0)
  %row = f32[1,256]{1,0:T(1,128)} parameter(1)
  %at = s32[]{:T(128)S(6)} parameter(2)
  ROOT %new = f32[64,256]{1,0:T(8,128)} dynamic-update-slice(%buffer, %row, %at, %at)
}

ENTRY %main (buffer: f32[64,256], row: f32[1,256], at: s32[]) -> f32[64,256] {
  %buffer = f32[64,256]{1,0:T(8,128)} parameter(0)
  %row = f32[1,256]{1,0:T(1,128)} parameter(1)
  %at = s32[]{:T(128)S(6)} parameter(2)
  ROOT %out = f32[64,256]{1,0:T(8,128)} fusion(%buffer, %row, %at), kind=kLoop, \
calls=%fused
}
"""
    found = traffic.of_program(hlo.parse(text), 1)
    assert found.hbm_bytes == 2 * ROW
    whole = text.replace(
        "dynamic-update-slice(%buffer, %row, %at, %at)", "negate(%buffer)"
    )
    assert traffic.of_program(hlo.parse(whole), 1).hbm_bytes == 2 * 64 * ROW


@pytest.mark.parametrize(
    ("text", "num_bytes", "tiled_bytes", "in_hbm"),
    [
        ("f32[]{:T(128)}", 4, 512, True),
        ("bf16[16,8,56,56,144]{4,0,3,2,1:T(8,128)(2,1)}", 115605504, 205520896, True),
        ("s8[3,5]{0,1:T(8,128)(4,1)S(1)}", 15, 8 * 128, False),
        ("pred[7]", 7, 7, True),
        ("s4[6]{0}", 3, 3, True),
        ("f8e4m3fn[2,2]{1,0}", 4, 4, True),
    ],
)
def test_shapes(text, num_bytes, tiled_bytes, in_hbm):
    assert list(hlo.shapes(text)) == [hlo.Shape(num_bytes, tiled_bytes, in_hbm)]


def test_text_without_program():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.parse("HloModule nothing\n")


COMPILED = """
import json
import numpy as np
from xdc_jax.planning import programs

programs.prepare_environment()
import jax, jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from xdc_jax import parallel
from xdc_jax.planning import hlo, traffic

mesh = programs.open_slice("v5e:2x2").mesh
big = jax.ShapeDtypeStruct((4 * 4096, 4096), jnp.float32)
small = jax.ShapeDtypeStruct((4 * 1024, 1024), jnp.float32)


def measure(function, *arguments):
    spec = P("data")
    step = parallel.map_over_data(function, mesh, (spec,) * len(arguments), spec)
    compiled = step.lower(*programs._placed(arguments, mesh, spec)).compile()
    moved = traffic.of_program(hlo.parse(compiled.as_text()), 4)
    return moved.hbm_bytes, moved.collective_bytes, compiled.cost_analysis()["flops"]


def turns(x):
    return jax.lax.fori_loop(0, 3, lambda i, x: jnp.roll(x, 1, 0) * 2.0, x)


print(json.dumps({
    "add": measure(lambda x: x + 1, big),
    "psum": measure(lambda x: jax.lax.psum(x, "data"), small),
    "turns": measure(turns, big),
}))
"""


def test_tiny_programs():
    """4096 x 4096 float32 are 64 MiB, more than what a v5e core keeps on the chip."""
    pytest.importorskip("libtpu")
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    mib = 2**20
    assert found["add"] == [128 * mib, 0, 4096 * 4096]
    assert found["psum"][1] == 4 * mib
    read_and_written = found["turns"][0] / (128 * mib)
    assert 3 <= read_and_written < 9, "at least once in each of three turns"
