"""A bucket in memory that answers as Cloud Storage's JSON API does, as far as gcsfs and TensorStore ask.

Objects have generations, and a write may ask for the one it replaces: what TensorStore's transactions rest on.
https://cloud.google.com/storage/docs/json_api/v1
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

_OBJECT = re.compile(r"(?:/upload|/download)?/storage/v1/b/([^/]+)(?:/o(?:/(.*))?)?")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")


class Bucket:
    """Objects by their names, each with its generation."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[int, bytes]] = {}
        self.uploads: dict[str, bytearray] = {}  # that came in pieces
        self.refuses = self.hides = False  # every write, or every look at it, with 403
        self.answers = threading.Event()  # not set, it keeps everybody waiting
        self.answers.set()
        self._lock = threading.Lock()
        self._generation = 0

    def put(self, name: str, content: bytes, expected: str | None) -> dict | None:
        """Returns what is known of the object that was written; None where another generation was expected."""
        with self._lock:
            if expected is not None and int(expected) != self.objects.get(name, (0, b""))[0]:
                return None
            self._generation += 1
            self.objects[name] = self._generation, content
        return self.about(name)

    def about(self, name: str) -> dict:
        generation, content = self.objects[name]
        digest = base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
        times = dict.fromkeys(("timeCreated", "updated"), "2026-01-01T00:00:00.000Z")
        return {"name": name, "bucket": "bucket", "size": str(len(content)), "md5Hash": digest,
                "generation": str(generation), "metageneration": "1", **times}  # fmt: skip

    def listed(self, query: dict[str, str]) -> dict:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        names = sorted(name for name in self.objects if name.startswith(prefix))
        names = [name for name in names if query.get("startOffset", "") <= name < query.get("endOffset", "\U0010ffff")]
        folders = set()
        if delimiter:
            folders = {
                prefix + name[len(prefix) :].partition(delimiter)[0] + delimiter
                for name in names
                if delimiter in name[len(prefix) :]
            }
            names = [name for name in names if delimiter not in name[len(prefix) :]]
        return {"items": [self.about(name) for name in names], "prefixes": sorted(folders)}


class _Handler(BaseHTTPRequestHandler):
    bucket: Bucket
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        name, query = self._asked()
        self.bucket.answers.wait()
        if self.bucket.hides:
            self._json({"error": {"code": 403, "message": "denied"}}, 403)
        elif name is None:
            self._json({"name": "bucket", "location": "EUROPE-WEST4", "storageClass": "STANDARD"})
        elif not name:
            self._json(self.bucket.listed(query))
        elif name not in self.bucket.objects:
            self._json({"error": {"code": 404, "message": "No such object"}}, 404)
        elif query.get("alt") != "media":
            self._json(self.bucket.about(name))
        else:
            self._content(name, query)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name, query = self._asked()
        self.bucket.answers.wait()
        if self.bucket.refuses:
            self._json({"error": {"code": 403, "message": "denied"}}, 403)
            return
        if query.get("uploadType") == "multipart":
            boundary = self.headers["Content-Type"].partition('boundary="')[2].rstrip('"').encode()
            about, content = body.split(b"--" + boundary)[1:3]
            name = json.loads(about.partition(b"\n\n")[2])["name"]
            body = content.partition(b"\n\n")[2].removesuffix(b"\n")
        elif "upload_id" in query:
            name, upload = query["name"], self.bucket.uploads[query["upload_id"]]
            upload += body
            if self.headers.get("Content-Range", "").endswith("/*"):  # more follows
                self._answer(b"", 308, {"Range": f"bytes=0-{len(upload) - 1}"})
                return
            body = bytes(upload)
        elif query.get("uploadType") == "resumable":
            number = str(len(self.bucket.uploads))
            self.bucket.uploads[number] = bytearray()
            self._answer(b"", 200, {"Location": f"http://{self.headers['Host']}{self.path}&upload_id={number}"})
            return
        elif query.get("uploadType") == "media":
            name = query["name"]
        else:
            copied = re.fullmatch(r"(.+)/(?:rewriteTo/b/[^/]+|moveTo)/o/(.+)", name or "")
            if copied is None:
                self._json({"error": {"code": 501, "message": f"not known to this bucket: {self.path}"}}, 501)
                return
            source, name = copied.groups()
            if source not in self.bucket.objects:
                self._json({"error": {"code": 404, "message": "No such object"}}, 404)
                return
            body = self.bucket.objects[source][1]
            if "/moveTo/" in self.path:
                del self.bucket.objects[source]
        assert name
        about = self.bucket.put(name, body, query.get("ifGenerationMatch"))
        if about is None:
            self._json({"error": {"code": 412, "message": "conditionNotMet"}}, 412)
        else:
            self._json({"done": True, "resource": about} if "/rewriteTo/" in self.path else about)

    def do_DELETE(self) -> None:
        name, _ = self._asked()
        found = self.bucket.objects.pop(name or "", None)
        self._answer(b"", 404 if found is None else 204)

    def _asked(self) -> tuple[str | None, dict[str, str]]:
        """Returns the object's name, "" for all of them and None for the bucket itself, and the query."""
        parts = urlsplit(self.path)
        match = _OBJECT.fullmatch(parts.path)
        assert match, self.path
        whole = "/o" in parts.path.partition("/b/")[2]
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        return (unquote(match[2] or "") if whole else None), query

    def _content(self, name: str, query: dict[str, str]) -> None:
        generation, content = self.bucket.objects[name]
        headers = {"x-goog-generation": str(generation), "x-goog-stored-content-length": str(len(content))}
        if query.get("ifGenerationNotMatch") == str(generation):
            self._answer(b"", 304, headers)
            return
        match = _RANGE.fullmatch(self.headers.get("Range", ""))
        if match is None:
            self._answer(content, 200, headers)
            return
        start, end = int(match[1]), min(int(match[2] or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
        self._answer(content[start : end + 1], 206, headers)

    def _json(self, answer: dict, status: int = 200) -> None:
        self._answer(json.dumps(answer).encode(), status, {"Content-Type": "application/json"})

    def _answer(self, content: bytes, status: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None: ...


@contextmanager
def serving() -> Iterator[tuple[Bucket, dict[str, str]]]:
    """Yields a bucket, called gs://bucket, and the environment variables that lead gcsfs and TensorStore to it."""
    bucket = Bucket()
    server = ThreadingHTTPServer(("localhost", 0), type("Handler", (_Handler,), {"bucket": bucket}))
    server.handle_error = lambda request, client_address: None  # who asks may hang up
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://localhost:{server.server_port}"
    # Without credentials, what kind of a bucket this is would be asked for in vain, each time anew.
    plain = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false", "NO_GCE_CHECK": "true"}
    try:
        yield bucket, {"STORAGE_EMULATOR_HOST": address, "TENSORSTORE_GCS_HTTP_URL": address, **plain}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
