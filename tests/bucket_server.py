"""A stand-in of Cloud Storage on 127.0.0.1, for what gs:// paths need of it.

It keeps objects in memory and serves the JSON API over HTTP, where gcsfs, TensorStore
and google-cloud-storage can be sent. TensorFlow always goes to googleapis.com; it takes
this server for its proxy and meets the same API there, over TLS with a certificate of
an authority made up for the test.
"""

import contextlib
import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

FORBIDDEN = "forbidden-bucket"


class Service:
    """Buckets: name -> name of object -> (content, generation)."""

    def __init__(self, *names: str):
        self.buckets = {name: {} for name in (*names, FORBIDDEN)}
        self.uploads: dict[str, tuple[str, str, bytearray]] = {}
        self.lock = threading.RLock()
        self._count = time.time_ns() // 1000

    def number(self) -> str:
        """Returns a number that is larger than those before."""
        self._count += 1
        return str(self._count)

    def put(self, bucket: str, name: str, data: bytes) -> dict:
        """Writes an object; returns its description."""
        self.buckets[bucket][name] = (bytes(data), self.number())
        return self.describe(bucket, name)

    def describe(self, bucket: str, name: str) -> dict:
        data, generation = self.buckets[bucket][name]
        moment = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        return {
            "bucket": bucket,
            "name": name,
            "size": str(len(data)),
            "generation": generation,
            "metageneration": "1",
            "updated": moment,
            "timeCreated": moment,
        }

    def list(self, bucket: str, query: dict[str, str]) -> dict:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        first, end = query.get("startOffset", ""), query.get("endOffset", "\U0010ffff")
        items, prefixes = [], set()
        for name in sorted(self.buckets[bucket]):
            if not (name.startswith(prefix) and first <= name < end):
                continue
            rest = name.removeprefix(prefix)
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                items.append(self.describe(bucket, name))
        return {"items": items, "prefixes": sorted(prefixes)}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one connection, which a CONNECT turns into one over TLS."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    service: Service
    tls: ssl.SSLContext
    scheme = "http"

    def log_message(self, *args):
        pass

    def do_CONNECT(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
        self.connection = self.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")
        self.wfile = self.connection.makefile("wb", buffering=0)
        self.scheme = "https"
        self.close_connection = False

    def do_GET(self):
        body = self._body()
        url = urlsplit(self.path)
        query = {key: value[-1] for key, value in parse_qs(url.query).items()}
        path = [unquote(part) for part in url.path.strip("/").split("/")]
        with self.service.lock:
            self._route(path, query, body)

    do_POST = do_PUT = do_DELETE = do_GET

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _route(self, path: list[str], query: dict[str, str], body: bytes):
        is_upload, is_download = path[0] == "upload", path[0] == "download"
        path = path[is_upload or is_download :]
        if path[:2] == ["storage", "v1"]:  # b BUCKET o OBJECT, and to where it goes
            bucket, name, rest = path[3], path[5] if path[5:] else None, path[6:]
        else:  # BUCKET OBJECT, of the XML API
            bucket, name, rest = path[0], "/".join(path[1:]), []
            is_download = True
        if self.scheme == "https" and "Authorization" not in self.headers:
            self._fail(401, "Anonymous callers have no access.")
        elif bucket == FORBIDDEN:
            self._fail(403, "The caller does not have access to the bucket.")
        elif bucket not in self.service.buckets:
            self._fail(404, "The specified bucket does not exist.")
        elif is_upload:
            self._upload(bucket, query, body)
        elif name is not None:
            self._object(bucket, name, rest, query, is_download)
        elif path[4:] == ["o"]:
            self._json(self.service.list(bucket, query))
        else:
            self._json({"name": bucket})

    def _object(self, bucket, name, rest, query, is_download):
        objects = self.service.buckets[bucket]
        if name not in objects:
            self._fail(404, f"No such object: {bucket}/{name}")
        elif not self._is_expected(bucket, name, query):
            pass
        elif rest:  # rewriteTo b BUCKET o OBJECT
            found = self.service.put(rest[2], rest[4], objects[name][0])
            self._json({"done": True, "resource": found})
        elif self.command == "DELETE":
            del objects[name]
            self._reply(204, b"")
        elif is_download or query.get("alt") == "media":
            self._media(*objects[name])
        else:
            self._json(self.service.describe(bucket, name))

    def _is_expected(self, bucket, name, query) -> bool:
        """Checks the condition of a request; answers it where that does not hold."""
        found = self.service.buckets[bucket].get(name, (b"", "0"))[1]
        if query.get("ifGenerationMatch", found) != found:
            self._fail(412, "ifGenerationMatch does not hold")
            return False
        if query.get("ifGenerationNotMatch") == found:
            self._reply(304, b"")
            return False
        return True

    def _media(self, data: bytes, generation: str):
        headers = {"x-goog-generation": generation}
        wanted = self.headers.get("Range", "").removeprefix("bytes=")
        if not wanted:
            self._reply(200, data, headers)
            return
        first, last = wanted.split("-")
        first, last = int(first), min(int(last or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        self._reply(416 if first > last else 206, data[first : last + 1], headers)

    def _upload(self, bucket, query, body):
        """Takes an object whole, or begins or goes on with one that comes in parts."""
        if key := query.get("upload_id"):
            bucket, name, content = self.service.uploads[key]
            content += body
            total = self.headers.get("Content-Range", "").rpartition("/")[2]
            if total in ("", str(len(content))):
                self._json(self.service.put(bucket, name, content))
            else:
                self._reply(308, b"", {"Range": f"bytes=0-{len(content) - 1}"})
        elif not self._is_expected(bucket, query["name"], query):
            pass
        elif query["uploadType"] == "media":
            self._json(self.service.put(bucket, query["name"], body))
        else:
            key = self.service.number()
            self.service.uploads[key] = (bucket, query["name"], bytearray())
            to = f"{self.scheme}://{self.headers['Host']}{urlsplit(self.path).path}"
            self._reply(200, b"{}", {"Location": f"{to}?upload_id={key}"})

    def _json(self, value: dict):
        self._reply(200, json.dumps(value).encode())

    def _fail(self, status: int, message: str):
        error = {"code": status, "message": message, "errors": []}
        self._reply(status, json.dumps({"error": error}).encode())

    def _reply(self, status: int, data: bytes, headers: dict | None = None):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        with contextlib.suppress(ConnectionError):  # the client has gone
            self.end_headers()
            self.wfile.write(data)


@contextlib.contextmanager
def serve(folder: Path, *names: str) -> Iterator[tuple[Service, dict[str, str]]]:
    """Runs the stand-in with empty buckets.

    Args:
        folder: for the certificate of its authority.
        names: of the buckets, besides `FORBIDDEN`.

    Yields:
        The service, and the environment variables that send processes to it.
    """
    import trustme

    authority, file = trustme.CA(), str(folder / "authority.pem")
    authority.cert_pem.write_to_path(file)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    hosts = ("storage.googleapis.com", "www.googleapis.com")
    authority.issue_cert(*hosts).configure_cert(tls)
    service = Service(*names)
    handler = type("Handler", (Handler,), {"service": service, "tls": tls})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    variables = {
        # of TensorFlow
        "https_proxy": address,
        "no_proxy": "127.0.0.1,localhost",
        "CURL_CA_BUNDLE": file,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "token",
        # of TensorStore, and of gcsfs and google-cloud-storage
        "TENSORSTORE_GCS_HTTP_URL": address,
        "STORAGE_EMULATOR_HOST": address,
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
    }
    try:
        yield service, variables
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
