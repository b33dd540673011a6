r"""Speed and memory of preparation: media hours per hour and core, peak memory.

Example (12 minutes on two cores, ffmpeg being Debian's):
  python benchmarks/prepare.py --clips_dir=../shared/data/clips --out=runs/prepare

The files of --clips_dir of 2 s or more, up to 720 lines, with their pictures and sound
as they are, are prepared with one worker process and with one per core. The peer is
the ffmpeg program, which writes the same pictures (size, rate, JPEG) and sound (wav) of
one file at a time, on one thread, as collections are commonly prepared.
Then a file of --hours, one of these repeated without coding it again, by one worker:
its peak memory, and that of the process that writes the shards.
"""

import contextlib
import csv
import json
import multiprocessing
import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import av
from absl import app, flags

CLIPS_DIR = flags.DEFINE_string("clips_dir", None, "Folder with files and manifest.csv")
OUT = flags.DEFINE_string("out", None, "Folder for what is prepared; made anew.")
HOURS = flags.DEFINE_float("hours", 2.0, "Length of the long file.")
LONG = "moviepy__chaplin.mp4"  # 640x360, 25 fps, H.264 and AAC


def choose(clips_dir: Path) -> list[tuple[Path, float]]:
    """Returns files and their lengths, seconds."""
    with (clips_dir / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "ok"]
    return [
        (clips_dir / row["file"], float(row["dur"]))
        for row in rows
        if row["n_video"] == "1"
        and 2 <= float(row["dur"] or 0) <= 60
        and int(row["h"]) <= 720
    ]


def repeat(source: Path, target: Path, hours: float) -> None:
    """Writes a file of many times the packets of another."""
    with av.open(str(source)) as probe:
        length_s = float(max(s.duration * s.time_base for s in probe.streams))
    with av.open(str(target), "w") as out:
        streams: dict[int, av.stream.Stream] = {}
        for i in range(round(3600 * hours / length_s)):
            with av.open(str(source)) as container:
                kept = [s for s in container.streams if s.type in ("video", "audio")]
                for stream in kept:
                    if stream.index not in streams:
                        new = out.add_stream_from_template(stream)
                        streams[stream.index] = new
                for packet in container.demux(kept):
                    if packet.dts is None:
                        continue
                    shift = round(i * length_s / packet.time_base)
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = streams[packet.stream_index]
                    out.mux(packet)


def prepared(folder: Path, out: Path, num_workers: int) -> dict[str, float]:
    """Prepares a folder in a process of its own; returns seconds and peak MB."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_prepare, args=(folder, out, num_workers, theirs))
    process.start()
    result = ours.recv()
    process.join()
    report = json.loads((out / "prepare_report.json").read_text())
    return {**result, "hours": report["media_hours"], "bytes": report["bytes"]}


def _prepare(folder: Path, out: Path, num_workers: int, pipe) -> None:
    from data_pipelines import media, prepare, sources

    peak_kb: dict[int, int] = {}

    def watch() -> None:
        while True:  # The process ends with its main thread.
            for child in multiprocessing.active_children():
                with contextlib.suppress(OSError):
                    peak_kb[child.pid] = _peak_kb(child.pid)
            time.sleep(0.2)

    threading.Thread(target=watch, daemon=True).start()
    start = time.monotonic()
    source = sources.folder_source(folder, folder_labels=False)
    prepare.prepare(source, out, media.Settings(), num_workers=num_workers)
    pipe.send(
        {
            "seconds": time.monotonic() - start,
            "worker_mb": max(peak_kb.values()) / 1024,
            "writer_mb": _peak_kb(os.getpid()) / 1024,
        }
    )


def _peak_kb(pid: int) -> int:
    """Peak of resident memory, which getrusage mixes up with that of the parent."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if "HWM" in line)


def by_ffmpeg(files: list[Path], out: Path) -> float:
    """Returns the seconds that the peer takes."""
    start = time.monotonic()
    size = "scale='if(gt(iw,ih),-2,min(128,iw))':'if(gt(iw,ih),min(128,ih),-2)'"
    for file in files:
        folder = out / file.name
        folder.mkdir(parents=True)
        command = ["ffmpeg", "-v", "error", "-nostdin", "-threads", "1", "-i", file]
        command += ["-map", "0:v:0", "-vf", size, "-q:v", "3", "-threads", "1"]
        command += ["-fpsmax", "30", folder / "%05d.jpg"]
        command += ["-map", "0:a:0?", "-ac", "1", "-ar", "16000", folder / "sound.wav"]
        subprocess.run(command, check=False, capture_output=True)
    return time.monotonic() - start


def main(_) -> None:
    """Runs everything and prints two tables."""
    from data_pipelines import workers

    out = Path(OUT.value)
    shutil.rmtree(out, ignore_errors=True)
    chosen = choose(Path(CLIPS_DIR.value))
    folder, files = out / "media", []
    folder.mkdir(parents=True)
    for i in range(4):
        for file, _ in chosen:
            files.append(folder / f"{i}_{file.name}")
            files[-1].symlink_to(file.absolute())
    hours = 4 * sum(length_s for _, length_s in chosen) / 3600
    size = 4 * sum(file.stat().st_size for file, _ in chosen)
    print(f"{len(files)} files, {60 * hours:.1f} minutes, {size / 1e6:.0f} MB")
    print("| what | cores | seconds | media hours per hour and core | MB written |")
    print("| --- | --- | --- | --- | --- |")
    rate = 0.0
    for cores in sorted({1, workers.available_cores()}):
        found = prepared(folder, out / f"prepared_{cores}", cores)
        rate = found["hours"] * 3600 / found["seconds"] / cores
        print(
            f"| xdc prepare | {cores} | {found['seconds']:.1f} | {rate:.1f} | "
            f"{found['bytes'] / 1e6:.0f} |",
            flush=True,
        )
    if shutil.which("ffmpeg"):
        seconds = by_ffmpeg(files, out / "ffmpeg")
        peer = hours * 3600 / seconds
        written = sum(f.stat().st_size for f in (out / "ffmpeg").rglob("*.*"))
        print(f"| ffmpeg | 1 | {seconds:.1f} | {peer:.1f} | {written / 1e6:.0f} |")
        print(f"\nratio to ffmpeg, per core: {rate / peer:.2f}\n", flush=True)
    long = out / "long" / "long.mp4"
    long.parent.mkdir()
    repeat(Path(CLIPS_DIR.value) / LONG, long, HOURS.value)
    found = prepared(long.parent, out / "prepared_long", 1)
    print("| long file | MB | seconds | hours per hour | worker MB | writer MB |")
    print("| --- | --- | --- | --- | --- | --- |")
    print(
        f"| {found['hours']:.2f} hours | {long.stat().st_size / 1e6:.0f} | "
        f"{found['seconds']:.0f} | {found['hours'] * 3600 / found['seconds']:.1f} | "
        f"{found['worker_mb']:.0f} | {found['writer_mb']:.0f} |"
    )


if __name__ == "__main__":
    flags.mark_flags_as_required(["clips_dir", "out"])
    app.run(main)
