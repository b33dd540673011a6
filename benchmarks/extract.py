r"""From media files to R(2+1)D-18 features: this project against PyTorch with PyAV.

Example:
  python -m benchmarks.extract --videos=../shared/data/clips

The centre clip of every file with pictures, 8 frames of 112x112 at 30 per second, the
same random weights in both. The peer is a DataLoader whose workers seek with PyAV,
decode up to the clip and scale it, and torchvision's network (the release's variant)
in channels-last layout, which is its fastest on CPU. Files that either cannot read are
left out beforehand. Compiling is not counted, nor the start of the peer's workers;
that of ours is.

Prints clips per second in all, of decoding alone and of the network alone; the medians
of --repeats runs, taken in turn, each in a process of its own.
"""

import csv
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
from absl import app, flags, logging

VIDEOS = flags.DEFINE_string("videos", None, "Folder of media files, or manifest.")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Clips per step.", 1)
NUM_WORKERS = flags.DEFINE_integer("num_workers", 2, "Processes that decode.", 1)
REPEATS = flags.DEFINE_integer("repeats", 3, "Runs of each.", 1)
ONLY = flags.DEFINE_string("only", None, "Measure this program here; for itself.")
OUT = flags.DEFINE_string("out", None, "With --only: folder of what was measured.")
LIMIT = flags.DEFINE_integer("limit", 64, "Files, at most: a multiple of the batch.", 1)
NUM_FRAMES, FPS, SHORT_SIDE, CROP = 8, 30.0, 128, 112
OURS, PEER = "xdc_jax", "PyTorch + PyAV"


class PyAvClips:
    """A PyTorch map-style data set: file -> centre clip, uint8 [time, y, x, 3]."""

    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        with av.open(self.paths[index]) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            first_s = float((stream.start_time or 0) * stream.time_base)
            if stream.duration:
                duration_s = float(stream.duration * stream.time_base)
            else:
                duration_s = (container.duration or 0) / av.time_base
            start_s = first_s + max(0.0, duration_s - NUM_FRAMES / FPS) / 2
            container.seek(int(start_s / stream.time_base), stream=stream)
            pictures, shown = [], None
            for frame in container.decode(stream):
                while (
                    shown is not None
                    and len(pictures) < NUM_FRAMES
                    and start_s + len(pictures) / FPS < frame.time
                ):
                    pictures.append(shown)
                if len(pictures) == NUM_FRAMES:
                    break
                shown = frame
            pictures += [shown] * (NUM_FRAMES - len(pictures))
            return np.stack([self._cropped(picture) for picture in pictures])

    def _cropped(self, frame):
        scale = SHORT_SIDE / min(frame.width, frame.height)
        width, height = round(frame.width * scale), round(frame.height * scale)
        y, x = (height - CROP) // 2, (width - CROP) // 2
        rgb = frame.reformat(width, height, "rgb24", interpolation="BILINEAR")
        return rgb.to_ndarray()[y : y + CROP, x : x + CROP]


class Peer:
    """PyTorch with PyAV."""

    def __init__(self, paths, network):
        import torch
        from torch.utils.data import DataLoader

        torch.set_num_threads(NUM_WORKERS.value)
        self._torch = torch
        self._network = network.to(memory_format=torch.channels_last_3d)
        self._mean = torch.tensor((0.43216, 0.394666, 0.37645))
        self._std = torch.tensor((0.22803, 0.22145, 0.216989))
        self._loader = DataLoader(
            PyAvClips(paths),
            batch_size=BATCH_SIZE.value,
            num_workers=NUM_WORKERS.value,
            persistent_workers=True,
            # A fork would make this process copy its memory, page by page.
            multiprocessing_context="spawn",
        )
        next(iter(self._loader))  # starts the workers

    def batches(self):
        """Yields decoded batches."""
        yield from self._loader

    def features(self, batches):
        """Runs the network."""
        with self._torch.inference_mode():
            return [self._features(batch) for batch in batches]

    def _features(self, batch):
        pixels = (batch.float() / 255 - self._mean) / self._std
        return self._network(pixels.permute(0, 4, 1, 2, 3)).numpy()


class Ours:
    """This project."""

    def __init__(self, manifest, encoder, out):
        import jax

        from data_pipelines.clip_spec import ClipSpec
        from data_pipelines.extraction import MediaSource
        from data_pipelines.views import Views
        from xdc_jax import extract, parallel

        parallel.keep_freed_memory()
        parallel.enable_compilation_cache()
        spec = ClipSpec(NUM_FRAMES, FPS, SHORT_SIDE, crop_size=CROP)
        source = MediaSource(manifest, spec, Views(), ("video",), NUM_WORKERS.value)
        self._job = extract.Job(
            source, {"video": encoder}, False, False, BATCH_SIZE.value, out
        )
        self._source = source
        mesh = parallel.make_mesh(jax.local_devices())
        self._apply, _ = extract.compile_encoders(self._job, mesh)

    def batches(self):
        """Yields decoded batches."""
        wanted = [
            (split, ids)
            for split, found in self._source.slices.items()
            for ids in found
        ]
        for piece in self._source.open(wanted, BATCH_SIZE.value):
            yield from piece.batches

    def features(self, batches):
        """Runs the network."""
        return [found["video"] for _, found in self._apply(batches)]


def readable(videos: Path, folder: Path) -> tuple[Path, list[str]]:
    """Writes a manifest of the files that both can read; returns it and the paths."""
    from data_pipelines import manifest as manifest_lib
    from data_pipelines.clip_spec import ClipSpec
    from data_pipelines.media_clips import read_clips
    from data_pipelines.streams import RejectedError
    from data_pipelines.views import Views

    if videos.is_file():
        rows = manifest_lib.read_manifest(videos).rows
    else:
        rows = manifest_lib.scan_folder(videos, folder_labels=False).rows
    spec = ClipSpec(NUM_FRAMES, FPS, SHORT_SIDE, crop_size=CROP)
    good = []
    for row in rows:
        if len(good) == LIMIT.value:
            break
        try:
            _, clip = read_clips((row, spec, Views(), ("video",)))
            PyAvClips([row.location])[0]
        except (RejectedError, av.FFmpegError, IndexError, AttributeError, TypeError):
            continue
        if clip.video is not None:
            good.append(row.location)
    path = folder / "readable.csv"
    manifest_lib.write_manifest(path, ({"path": location} for location in good))
    return path, sorted(good)


def measure(name: str, manifest: Path, out: Path) -> None:
    """Measures one program in this process; writes times and features into `out`."""
    import torch

    from tests.weights import torch_release
    from xdc_jax.weights import layout
    from xdc_jax.weights.encoder_dir import SavedEncoder

    logging.set_verbosity(logging.WARNING)
    torch.manual_seed(0)
    network = torch_release.randomised(torch_release.VideoResNet(official=True), 0)
    if name == PEER:
        with manifest.open(newline="") as file:
            paths = [row["path"] for row in csv.DictReader(file)]
        program = Peer(paths, network)
    else:
        spec = layout.ModelSpec("r2plus1d_18")
        state = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
        variables = layout.from_torch(state, spec)
        encoder = SavedEncoder(spec, "kinetics", "random", variables)
        program = Ours(manifest, encoder, out / "features")
    program.features(itertools.islice(program.batches(), 1))  # compiles
    start = time.perf_counter()
    batches = list(program.batches())
    decoded = time.perf_counter()
    program.features(batches)
    done = time.perf_counter()
    found = np.concatenate(program.features(program.batches()))
    end = time.perf_counter()
    np.save(out / "features.npy", found)
    times = {"all": end - done, "decode": decoded - start, "network": done - decoded}
    (out / "times.json").write_text(json.dumps(times))


def main(_) -> None:
    """Measures both in turn, each in a process of its own, and prints the table."""
    if ONLY.value:
        measure(ONLY.value, Path(VIDEOS.value), Path(OUT.value))
        return
    seconds = {PEER: [], OURS: []}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        manifest, paths = readable(Path(VIDEOS.value).expanduser(), Path(folder))
        for name in [PEER, OURS] * REPEATS.value:
            command = [sys.executable, "-m", "benchmarks.extract", f"--only={name}"]
            command += [f"--videos={manifest}", f"--out={folder}"]
            command += [f"--batch_size={BATCH_SIZE.value}"]
            command += [f"--num_workers={NUM_WORKERS.value}"]
            subprocess.run(command, check=True)
            times = json.loads((Path(folder) / "times.json").read_text())
            seconds[name].append(times)
            found[name] = np.load(Path(folder) / "features.npy")
            print(name, {part: round(value, 1) for part, value in times.items()})
    parts = ("all", "decode", "network")
    rates = {
        name: [
            len(paths) / np.median([times[part] for times in runs]) for part in parts
        ]
        for name, runs in seconds.items()
    }
    rates["ratio"] = np.divide(rates[OURS], rates[PEER])
    print(f"\n{len(paths)} clips; clips per second\n")
    print(f"| | {' | '.join(parts)} |\n| --- | --- | --- | --- |")
    for name, row in rates.items():
        print(f"| {name} | {' | '.join(f'{value:.2f}' for value in row)} |")
    ours, theirs = found[OURS], found[PEER]
    cosine = np.sum(ours * theirs, axis=1) / (
        np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    )
    print(f"\ncosine of our features and theirs: median {np.median(cosine):.4f}")


if __name__ == "__main__":
    flags.mark_flags_as_required(["videos"])
    app.run(main)
