"""Downloads of released checkpoints, from a host of our own."""

import hashlib
import http.server
import re
import threading
from typing import ClassVar

import numpy as np
import pytest

from xdc_jax.errors import UserError
from xdc_jax.files import cache_dir
from xdc_jax.weights import published

NAME = "r2plus1d_18_xdc_audioset"
CONTENT = np.random.default_rng(0).bytes(3_000_000)


class Host(http.server.BaseHTTPRequestHandler):
    """Plays the release host. The class attributes say how it behaves."""

    content = CONTENT
    knows_ranges = True
    breaks_after = None
    requests: list[str]

    def do_GET(self):
        start = 0
        wanted = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted and self.knows_ranges:
            start = int(wanted[1])
        self.requests.append(f"{self.path} from {start}")
        if self.content is None:
            self.send_error(404)
            return
        if start >= len(self.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        body = self.content[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.breaks_after])

    def log_message(self, *_):
        pass


@pytest.fixture
def host(monkeypatch, tmp_path):
    """Returns the handler class of a running host that `published` asks."""

    class Handler(Host):
        requests: ClassVar = []

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    url = f"http://127.0.0.1:{server.server_address[1]}/release"
    monkeypatch.setattr(published, "RELEASE_URL", url)
    prefix = hashlib.sha256(CONTENT).hexdigest()[:8]
    monkeypatch.setitem(published.HASH_PREFIXES, NAME, prefix)
    Handler.file_name = f"{NAME}-{prefix}.pth"
    yield Handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_is_downloaded_once(host, tmp_path):
    path = published.fetch(NAME)
    assert path == tmp_path / "xdc_jax" / "weights" / host.file_name
    assert path.read_bytes() == CONTENT
    assert published.fetch(NAME) == path
    assert host.requests == [f"/release/{host.file_name} from 0"]
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_an_interrupted_download_is_gone_on_with(host, knows_ranges):
    host.breaks_after = 2_100_000
    with pytest.raises(UserError, match=r"broke off after 2100000 of 3000000 bytes"):
        published.fetch(NAME)
    host.breaks_after = None
    host.knows_ranges = knows_ranges
    assert published.fetch(NAME).read_bytes() == CONTENT
    start = 2_100_000 if knows_ranges else 0
    assert host.requests[1:] == [f"/release/{host.file_name} from {start}"]


def test_a_download_that_was_killed_when_complete(host):
    path = cache_dir("weights") / host.file_name
    path.parent.mkdir(parents=True)
    path.with_name(f"{path.name}.part").write_bytes(CONTENT)
    assert published.fetch(NAME).read_bytes() == CONTENT


def test_another_hash_is_an_error_and_leaves_nothing(host):
    host.content = CONTENT[:-1]
    with pytest.raises(UserError, match=r"SHA-256 begins with [0-9a-f]{8}, expected"):
        published.fetch(NAME)
    assert not list(cache_dir("weights").iterdir())
    host.content = CONTENT
    assert published.fetch(NAME).read_bytes() == CONTENT


def test_no_such_file(host):
    host.content = None
    with pytest.raises(UserError, match=rf"{host.file_name}: HTTP status 404"):
        published.fetch(NAME)
    assert not list(cache_dir("weights").iterdir())


def test_no_host(host, monkeypatch):
    monkeypatch.setattr(published, "RELEASE_URL", "http://127.0.0.1:9/release")
    with pytest.raises(UserError, match=r"download failed \(.*refused"):
        published.fetch(NAME)
