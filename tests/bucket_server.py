"""A stand-in of Cloud Storage on 127.0.0.1, for what gs:// paths need of it.

It keeps objects in memory and serves the JSON API over HTTP, where gcsfs, TensorStore
and google-cloud-storage can be sent. TensorFlow always goes to googleapis.com; it takes
this server for its proxy and meets the same API there, over TLS with a certificate of
an authority made up for the test.
"""

import base64
import contextlib
import email
import hashlib
import http.server
import json
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "token-of-the-test"
FORBIDDEN = "forbidden-bucket"


class Service:
    """Buckets, and what a test wants to know or to go wrong.

    Attributes:
        buckets: name -> name of object -> (content, generation).
        requests: `METHOD path` of all requests, in order.
    """

    def __init__(self, *names: str):
        self.buckets = {name: {} for name in (*names, FORBIDDEN)}
        self.requests: list[str] = []
        self.lock = threading.RLock()
        self._uploads: dict[str, tuple[str, str, bytearray]] = {}
        self._count = 0

    def number(self) -> int:
        """Returns a number that was not returned before, larger each time."""
        self._count += 1
        return time.time_ns() // 1000 + self._count

    def put(self, bucket: str, name: str, data: bytes) -> dict:
        self.buckets[bucket][name] = (bytes(data), self.number())
        return self.describe(bucket, name)

    def describe(self, bucket: str, name: str) -> dict:
        data, generation = self.buckets[bucket][name]
        moment = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": name,
            "size": str(len(data)),
            "generation": str(generation),
            "metageneration": "1",
            "updated": moment,
            "timeCreated": moment,
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
        }

    def list(self, bucket: str, query: dict[str, str]) -> dict:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        start, end = query.get("startOffset", ""), query.get("endOffset")
        items, prefixes = [], set()
        for name in sorted(self.buckets[bucket]):
            if not name.startswith(prefix) or name < start or (end and name >= end):
                continue
            rest = name.removeprefix(prefix)
            if delimiter and delimiter in rest:
                prefixes.add(prefix + rest.split(delimiter)[0] + delimiter)
            else:
                items.append(self.describe(bucket, name))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}

    def begin_upload(self, bucket: str, name: str) -> str:
        key = str(self.number())
        self._uploads[key] = (bucket, name, bytearray())
        return key

    def go_on_with_upload(self, key: str, data: bytes, total: str) -> dict | int:
        """Returns the object if it is whole now, else how much of it there is."""
        bucket, name, content = self._uploads[key]
        content += data
        if total != "*" and len(content) == int(total):
            return self.put(bucket, name, content)
        return len(content)


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
        self._serve()

    do_POST = do_PUT = do_DELETE = do_GET

    def _serve(self):
        body = self._body()
        url = urlsplit(self.path)
        query = {key: value[-1] for key, value in parse_qs(url.query).items()}
        with self.service.lock:
            self.service.requests.append(f"{self.command} {unquote(url.path)}")
            self._route(url.path.strip("/").split("/"), query, body)

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
        upload, download = path[0] == "upload", path[0] == "download"
        path = [unquote(part) for part in path[upload or download :]]
        if path[:2] == ["storage", "v1"]:  # storage v1 b BUCKET o OBJECT ...
            bucket, name, rest = path[3], path[5] if path[5:] else None, path[6:]
        else:  # BUCKET OBJECT, of the XML API
            bucket, name, rest = path[0], "/".join(path[1:]), []
            download = True
        if "Authorization" not in self.headers and self.scheme == "https":
            return self._fail(401, "Anonymous caller does not have access.")
        if bucket == FORBIDDEN:
            return self._fail(403, "The caller does not have storage.objects access.")
        if bucket not in self.service.buckets:
            return self._fail(404, "The specified bucket does not exist.")
        if upload:
            return self._upload(bucket, query, body)
        if name is None:
            is_list = len(path) > 4
            return self._json(
                self.service.list(bucket, query) if is_list else {"name": bucket}
            )
        return self._object(bucket, name, rest, query, download)

    def _object(self, bucket, name, rest, query, download):
        objects = self.service.buckets[bucket]
        if name not in objects:
            return self._fail(404, f"No such object: {bucket}/{name}")
        if not self._is_expected(bucket, name, query):
            return None
        if rest:  # rewriteTo b BUCKET o OBJECT, or moveTo o OBJECT
            target = rest[2] if rest[0] == "rewriteTo" else bucket
            found = self.service.put(target, rest[-1], objects[name][0])
            if rest[0] == "moveTo":
                del objects[name]
                return self._json(found)
            return self._json({"done": True, "resource": found})
        if self.command == "DELETE":
            del objects[name]
            return self._reply(204, b"")
        if download or query.get("alt") == "media":
            return self._media(*objects[name])
        return self._json(self.service.describe(bucket, name))

    def _is_expected(self, bucket, name, query) -> bool:
        """Checks preconditions on the generation; answers where one does not hold."""
        _, found = self.service.buckets[bucket].get(name, (b"", 0))
        if query.get("ifGenerationMatch", str(found)) != str(found):
            self._fail(412, "ifGenerationMatch does not hold")
            return False
        if query.get("ifGenerationNotMatch") == str(found):
            self._reply(304, b"")
            return False
        return True

    def _media(self, data: bytes, generation: int):
        headers = {"x-goog-generation": str(generation)}
        wanted = self.headers.get("Range", "").removeprefix("bytes=")
        if not wanted:
            return self._reply(200, data, headers)
        first, _, last = wanted.partition("-")
        if not first:
            first, last = max(0, len(data) - int(last)), ""
        first, last = int(first), min(int(last or len(data)), len(data) - 1)
        if first >= len(data):
            return self._reply(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
        return self._reply(206, data[first : last + 1], headers)

    def _upload(self, bucket, query, body):
        if "upload_id" in query:
            _, _, total = self.headers.get("Content-Range", "").rpartition("/")
            if not total:
                total = str(len(body))
            found = self.service.go_on_with_upload(query["upload_id"], body, total)
            if isinstance(found, dict):
                return self._json(found)
            return self._reply(308, b"", {"Range": f"bytes=0-{found - 1}"})
        kind, name = query["uploadType"], query.get("name")
        if kind == "multipart":
            header = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            about, content = email.message_from_bytes(header + body).get_payload()
            name = json.loads(about.get_payload())["name"]
            body = content.get_payload(decode=True)
        elif kind == "resumable":
            name = name or json.loads(body)["name"]
        if not self._is_expected(bucket, name, query):
            return None
        if kind != "resumable":
            return self._json(self.service.put(bucket, name, body))
        key = self.service.begin_upload(bucket, name)
        address = (
            f"{self.scheme}://{self.headers['Host']}/upload/storage/v1/b/{bucket}/o"
        )
        return self._reply(200, b"{}", {"Location": f"{address}?upload_id={key}"})

    def _json(self, value: dict):
        kind = {"Content-Type": "application/json"}
        self._reply(200, json.dumps(value).encode(), kind)

    def _fail(self, status: int, message: str):
        error = {"error": {"code": status, "message": message, "errors": []}}
        self._reply(status, json.dumps(error).encode())

    def _reply(self, status: int, data: bytes, headers: dict | None = None):
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        with contextlib.suppress(ConnectionError):  # the client has gone
            self.end_headers()
            self.wfile.write(data)


@contextlib.contextmanager
def serve(folder: Path, *names: str) -> Iterator[tuple[Service, dict[str, str]]]:
    """Runs the stand-in with empty buckets.

    Args:
        folder: for the certificate of its authority.
        names: of the buckets.

    Yields:
        The service, and the environment variables that send processes to it.
    """
    import trustme

    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("storage.googleapis.com", "www.googleapis.com").configure_cert(
        tls
    )
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    service = Service(*names)
    handler = type("Handler", (Handler,), {"service": service, "tls": tls})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield (
            service,
            {
                # TensorFlow
                "https_proxy": address,
                "CURL_CA_BUNDLE": str(folder / "authority.pem"),
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": TOKEN,
                "NO_GCE_CHECK": "true",
                # TensorStore; gcsfs and google-cloud-storage
                "TENSORSTORE_GCS_HTTP_URL": address,
                "STORAGE_EMULATOR_HOST": address,
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            },
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
