"""The checkpoints that the authors of XDC released, by name, and downloading them.

Source of names, address and hashes: HumamAlwassel/XDC, README.md and xdc.py. The eight
hex digits in a file's name begin the SHA-256 of its content.
"""

import hashlib
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from xdc_jax.errors import UserError
from xdc_jax.files import cache_dir

RELEASE_URL = "https://github.com/HumamAlwassel/XDC/releases/download/model_weights"
# name -> how the SHA-256 of its file begins
HASH_PREFIXES = {
    "r2plus1d_18_xdc_ig65m_kinetics": "f24f6ffb",
    "r2plus1d_18_xdc_ig65m_random": "189d23f4",
    "r2plus1d_18_xdc_audioset": "f29ffe8f",
    "r2plus1d_18_fs_kinetics": "622bdad9",
    "r2plus1d_18_fs_imagenet": "ff446670",
}
_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30


def fetch(name: str) -> Path:
    """Returns the file of a released checkpoint; downloads it unless it is there.

    Args:
      name: a key of `HASH_PREFIXES`.

    Raises:
      UserError: the download failed, or the content has another hash than the name.
    """
    prefix = HASH_PREFIXES[name]
    path = cache_dir("weights") / f"{name}-{prefix}.pth"
    if not path.exists():
        download(f"{RELEASE_URL}/{path.name}", path, prefix)
    return path


def download(url: str, path: Path, hash_prefix: str) -> None:
    """Downloads a file beside its name and renames it when its hash is right.

    What an interrupted download left in `path`.part is gone on with.

    Raises:
      UserError: no connection, no such file, the connection broke off, or another hash.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    by_hand = f"Download it by hand to {path}, or try again"
    try:
        _receive(url, part)
    except urllib.error.HTTPError as error:
        raise UserError(f"{url}: HTTP status {error.code} {error.reason}") from error
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise UserError(f"{url}: download failed ({reason}). {by_hand}") from error
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(hash_prefix):
        part.unlink()
        raise UserError(
            f"{url}: its SHA-256 begins with {found[:8]}, expected {hash_prefix}; the "
            f"file is not what was released, and was removed. {by_hand}"
        )
    part.replace(path)


def _receive(url: str, part: Path) -> None:
    """Appends to `part` what it lacks of a file."""
    done = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={done}-"} if done else {}
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # There is nothing after what we have.
            raise
        return
    with response:
        if response.status != 206:  # The server sends the whole file again.
            done = 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length else None
        with (
            part.open("ab" if done else "wb") as file,
            tqdm(
                total=total,
                initial=done,
                desc=part.stem,
                unit="B",
                unit_scale=True,
                disable=None,
            ) as bar,
        ):
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                done += len(chunk)
                bar.update(len(chunk))
        if total is not None and done < total:
            raise ConnectionError(f"broke off after {done} of {total} bytes")
