r"""Clips per second and core: from shards, against decoding the media on the fly.

Example (after `pip install torch==2.13.0 decord torchcodec==0.13.0 libtpu`):
  python -m benchmarks.input_pipeline --footage=../shared/data/clips \
      --out=runs/input_pipeline --topology=v5e:2x4

Media: 10-second clips of 340x256 at 30 per second, H.264 with AAC sound, that the
script codes from real footage. A clip is 8 pictures of 112x112 around a random place
and crop, and the log-mel spectrogram of 2 s of sound around it, in a batch on the
device. Every reader runs in a process of its own, on one core, one after another:
xdc_jax from shards that `xdc prepare` made with its default settings, with several
clips drawn from a record, over whole epochs (the last one is finished), so that the
filling of the shuffle buffer counts; and the peers, which seek in the file, decode up
to the clip and make the spectrogram with torch.stft.

--topology adds how many host cores a training step of xdc_kinetics needs on a slice, by
its roofline (see `xdc plan`).
"""

import itertools
import json
import os
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from absl import app, flags

FOOTAGE = flags.DEFINE_string("footage", None, "Folder with real media files.")
OUT = flags.DEFINE_string("out", None, "Folder for what is made.")
SECONDS = flags.DEFINE_float("seconds", 25.0, "Each reader is measured this long.")
DRAWS = flags.DEFINE_list("clips_per_record", ["1", "4", "8"], "Of xdc_jax.")
TOPOLOGY = flags.DEFINE_string("topology", None, "TPU slice, such as v5e:2x4.")
ONLY = flags.DEFINE_string("only", None, "Measure this reader here; for itself.")

SOURCES = (
    "mmaction2__test.mp4",
    "mmaction2__demo.mp4",
    "mmaction2__test_video_structuralize.mp4",
    "moviepy__chaplin.mp4",
    "intel__bottle-detection.mp4",
)
SOUND = "moviepy__chaplin.mp4"
COPIES, DURATION_S, FPS, WIDTH, HEIGHT = 200, 10, 30, 340, 256
NUM_FRAMES, SHORT_SIDE, CROP, BATCH = 8, 128, 112, 16
AUDIO_S, RATE_HZ, MEL_FRAMES, MELS, WINDOW = 2.0, 16_000, 100, 40, 640
CLIPS_PER_CORE, NUM_CLIPS = 32, 230_000


def make_media(footage: Path, folder: Path) -> None:
    """Codes the footage as 10-second clips; several names for each."""
    folder.mkdir(parents=True)
    with av.open(str(footage / SOUND)) as container:
        resampler = av.AudioResampler("fltp", "stereo", 44_100)
        frames = [g for f in container.decode(audio=0) for g in resampler.resample(f)]
    sound = np.concatenate([frame.to_ndarray() for frame in frames], axis=1)
    sound = np.tile(sound, 2)[:, : DURATION_S * 44_100]
    for number, name in enumerate(SOURCES):
        with av.open(str(footage / name)) as container:
            pictures = []
            for frame in container.decode(video=0):
                pictures.append(frame.reformat(WIDTH, HEIGHT, "yuv420p").to_ndarray())
                if len(pictures) == DURATION_S * FPS:
                    break
        pictures += pictures[::-1]  # a shorter one runs back again
        path = folder / f"{number}_000.mp4"
        with av.open(str(path), "w") as out:
            video = out.add_stream("libx264", rate=FPS)
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            audio = out.add_stream("aac", rate=44_100, layout="stereo")
            for i in range(DURATION_S * FPS):
                picture = pictures[i % len(pictures)]
                frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
                frame.pts, frame.time_base = i, Fraction(1, FPS)
                out.mux(video.encode(frame))
            out.mux(video.encode(None))
            frame = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(sound), format="fltp", layout="stereo"
            )
            frame.sample_rate, frame.pts = 44_100, 0
            out.mux(audio.encode(frame))
            out.mux(audio.encode(None))
        for copy in range(1, COPIES):
            (folder / f"{number}_{copy:03d}.mp4").hardlink_to(path)


def read_pyav(path, start_s):
    """Returns pictures [8, 128, 170, 3] and samples [32000] from an instant on."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        container.seek(int(start_s / stream.time_base), stream=stream)
        pictures = []
        for frame in container.decode(stream):
            if frame.time >= start_s - 0.5 / FPS:
                frame = frame.reformat(170, SHORT_SIDE, "rgb24")
                pictures.append(frame.to_ndarray())
                if len(pictures) == NUM_FRAMES:
                    break
        stream = container.streams.audio[0]
        container.seek(int(start_s / stream.time_base), stream=stream)
        resampler, sound = av.AudioResampler("flt", "mono", RATE_HZ), []
        for frame in container.decode(stream):
            sound += [x.to_ndarray()[0] for x in resampler.resample(frame)]
            if frame.time > start_s + AUDIO_S:
                break
    return np.stack(pictures), np.concatenate(sound)[: int(AUDIO_S * RATE_HZ)]


def read_decord(path, start_s):
    """As `read_pyav`."""
    import decord

    reader = decord.VideoReader(path, num_threads=1, width=170, height=SHORT_SIDE)
    first = round(start_s * FPS)
    pictures = reader.get_batch(range(first, first + NUM_FRAMES)).asnumpy()
    sound = decord.AudioReader(path, sample_rate=RATE_HZ, mono=True)
    low = round(start_s * RATE_HZ)
    return pictures, sound[low : low + int(AUDIO_S * RATE_HZ)].asnumpy()[0]


def read_torchcodec(path, start_s):
    """As `read_pyav`."""
    import torch
    from torchcodec.decoders import AudioDecoder, VideoDecoder

    decoder = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="approximate")
    first = round(start_s * FPS)
    frames = decoder.get_frames_in_range(first, first + NUM_FRAMES).data
    scaled = torch.nn.functional.interpolate(
        frames.float(), size=(SHORT_SIDE, 170), mode="bilinear", antialias=True
    )
    pictures = scaled.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    sound = AudioDecoder(path, sample_rate=RATE_HZ, num_channels=1)
    found = sound.get_samples_played_in_range(start_s, start_s + AUDIO_S)
    return pictures, found.data[0].numpy()


PEERS = {"PyAV": read_pyav, "decord": read_decord, "torchcodec": read_torchcodec}


def peer_batches(name, paths):
    """Yields batches of random clips, for ever."""
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    window = torch.hann_window(WINDOW)
    weights = torch.rand(WINDOW // 2 + 1, MELS)  # the cost of a mel filter bank
    while True:
        clips, spectrograms = [], []
        for path in rng.choice(paths, BATCH):
            start_s = rng.uniform(0, DURATION_S - AUDIO_S - 0.5)
            pictures, samples = PEERS[name](str(path), start_s)
            y, x = rng.integers(0, (SHORT_SIDE - CROP, 170 - CROP))
            clips.append(pictures[:, y : y + CROP, x : x + CROP])
            samples = np.pad(samples, (0, int(AUDIO_S * RATE_HZ) - len(samples)))
            spectrum = torch.stft(
                torch.from_numpy(np.ascontiguousarray(samples, np.float32)),
                WINDOW,
                hop_length=320,
                window=window,
                return_complex=True,
            )[:, :MEL_FRAMES]
            mel = torch.log(spectrum.abs().square().T @ weights + 1e-6)
            spectrograms.append(mel.numpy()[..., None])
        yield {"video": np.stack(clips), "audio": np.stack(spectrograms)}


def our_epochs(data_dir, clips_per_record):
    """Yields epochs, each the batches of random clips, for ever."""
    from data_pipelines import shards
    from data_pipelines.clips import ClipData, ClipSpec

    clips = ClipData(shards.open_prepared(data_dir), ClipSpec(), seed=0)
    draws = np.full(clips.num_clips("train"), clips_per_record)
    epoch = 0
    while True:
        yield clips.train_batches("train", batch_size=BATCH, epoch=epoch, draws=draws)
        epoch += 1


def measure(name, out):
    """Prints the clips per second of one reader, on one core."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    os.environ["JAX_PLATFORMS"] = "cpu"
    from xdc_jax import parallel
    from xdc_jax.training.feed import prefetch

    kind, _, draws = name.partition(":")
    if kind == "xdc_jax":
        epochs = our_epochs(out / "prepared", int(draws))
    else:
        batches = peer_batches(kind, sorted((out / "media").iterdir()))
        epochs = (itertools.islice(batches, 1) for _ in itertools.count())
    mesh = parallel.make_mesh()
    next(prefetch(next(epochs), ("video", "audio"), mesh))  # what is traced once
    start, count = time.perf_counter(), 0
    while (elapsed_s := time.perf_counter() - start) < SECONDS.value:
        for _, inputs in prefetch(next(epochs), ("video", "audio"), mesh):
            inputs["video"].block_until_ready()
            count += BATCH
        print(f"{count / (time.perf_counter() - start):.1f}", file=sys.stderr)
    print(json.dumps(count / elapsed_s))


def clips_per_second_of_slice(topology):
    """Prints the clips per second of a slice at the roofline; see `xdc plan`."""
    from configs import xdc_kinetics
    from xdc_jax.planning import programs

    programs.prepare_environment()
    tpu = programs.open_slice(topology)
    rows = CLIPS_PER_CORE * tpu.mesh.size
    step = programs.train_step(tpu, xdc_kinetics.get_config(), NUM_CLIPS, rows)
    found = {
        "tflop": step.flops / 1e12,
        "gb": step.hbm_bytes / 1e9,
        "clips_per_s": rows / step.seconds(tpu.chip),
    }
    print(json.dumps(found))


def in_process(what):
    """Returns what this script prints for one reader, None with the reason."""
    command = [sys.executable, "-m", "benchmarks.input_pipeline", f"--only={what}"]
    command += [f"--out={OUT.value}", f"--seconds={SECONDS.value}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return None, done.stderr.strip().splitlines()[-1]
    return json.loads(done.stdout.strip().splitlines()[-1]), ""


def main(_) -> None:
    """Runs everything and prints the tables."""
    out = Path(OUT.value)
    if ONLY.value and ONLY.value.startswith("slice:"):
        return clips_per_second_of_slice(ONLY.value.removeprefix("slice:"))
    if ONLY.value:
        return measure(ONLY.value, out)
    from data_pipelines import media, prepare, shards, sources, workers

    media_dir, data_dir = out / "media", out / "prepared"
    if not media_dir.exists():
        make_media(Path(FOOTAGE.value), media_dir)
    source = sources.folder_source(media_dir, folder_labels=False)
    cores = workers.available_cores()
    prepare.prepare(source, data_dir, media.Settings(), num_workers=cores)
    report = json.loads((data_dir / shards.REPORT_FILE).read_text())
    file_mb = sum(path.stat().st_size for path in media_dir.iterdir()) / 1e6
    record_mb = report["bytes"] / 1e6 / report["clips"]
    hours = report["media_hours"]
    print(
        f"{report['clips']} clips of {DURATION_S} s; source {file_mb / hours:.0f} MB, "
        f"shards {report['bytes'] / 1e6 / hours:.0f} MB per hour\n"
    )
    print("| reader | clips/s and core | of the fastest peer | MB read per clip |")
    print("| --- | --- | --- | --- |")
    peers, rows = {}, []
    for name in PEERS:
        found, why = in_process(name)
        peers[name] = found
        rows.append((name, found, file_mb / report["clips"], why))
    for draws in DRAWS.value:
        found, why = in_process(f"xdc_jax:{draws}")
        name = f"xdc_jax, {draws} per record"
        rows.append((name, found, record_mb / int(draws), why))
    fastest = max(filter(None, peers.values()), default=float("nan"))
    for name, found, mb, why in rows:
        if found is None:
            print(f"| {name} | {why} | | |")
        else:
            print(f"| {name} | {found:.1f} | {found / fastest:.1f} | {mb:.2f} |")
    if TOPOLOGY.value:
        step, why = in_process(f"slice:{TOPOLOGY.value}")
        print(f"\n{TOPOLOGY.value}: {step or why}")
        for name, found, _, _ in rows if step else ():
            if found:
                print(f"{name}: {step['clips_per_s'] / found:.0f} host cores")
    return None


if __name__ == "__main__":
    flags.mark_flags_as_required(["out"])
    app.run(main)
