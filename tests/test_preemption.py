"""Notices of the machine: the metadata server of Google Cloud, here a stand-in."""

import http.server
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

SCRIPT = """
import time
from xdc_jax import preemption

preemption.watch()
preemption.follow_metadata(every_s=0.05)
print("follows", flush=True)
for _ in range(600):
    if preemption.noticed():
        print("noticed")
        break
    time.sleep(0.1)
"""


@pytest.mark.parametrize(
    ("key", "answer"),
    [("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE"), ("preempted", "TRUE")],
)
def test_a_notice_of_the_metadata_server_is_one_to_the_process(key, answer):
    said = {
        "maintenance-event": "MIGRATE_ON_HOST_MAINTENANCE",
        "preempted": "FALSE",
    }
    asked = []

    class Metadata(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            name = self.path.removeprefix("/computeMetadata/v1/instance/")
            asked.append((name, self.headers["Metadata-Flavor"]))
            if len(asked) == 1:  # a fault is no notice
                self.send_error(503)
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(said[name].encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metadata) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_address[1]}"
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "GCE_METADATA_HOST": host},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "follows\n"
        while len(asked) < 6:
            assert process.poll() is None
            time.sleep(0.02)
        said[key] = answer
        assert process.communicate(timeout=60)[0] == "noticed\n"
        server.shutdown()
    assert process.returncode == 0
    assert {flavor for _, flavor in asked} == {"Google"}


def test_a_second_sigterm_ends_the_process():
    script = "from xdc_jax import preemption as p; import time; p.watch()\n"
    process = subprocess.Popen(
        [sys.executable, "-c", script + "print(1, flush=True); time.sleep(60)"],
        stdout=subprocess.PIPE,
    )
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM
    process.stdout.close()
