"""Attacks the HTTP service as strangers do, and counts what it answers.

python -m tools.fuzz_service [--model efficientnet_lite0] [--requests 5000] [--images 5000] [--schemathesis st]

It starts the service in a process of its own, with all that it can have: a second model as shadow, records, a cache, an
index of images, and the routes that change which model answers, whose key the requests have. It sends it requests that
schemathesis (`pip install schemathesis`, best in an environment of its own) makes from its OpenAPI description, images
with bytes changed, moved, cut and doubled, and a list of single attacks, each with the answer that it should get. The
status is 1 if anything is answered by a 500, if the process ends, if an attack is answered otherwise, or if its memory
has grown by more than 64 MiB after the first tenth of the images.
"""

import argparse
import base64
import http.client
import io
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

NAME = "it"
FAILED = (500, 502)  # 503 is overload's and 504 a time that is over: each an answer that was meant
GROWTH = 64  # MiB that the service may grow while it is attacked
PREDICT = f"/v1/models/{NAME}/predict"
SEARCH = f"/v1/models/{NAME}/search"
CANARY = f"/v1/models/{NAME}/canary"
KEY = "0123456789abcdef"  # of those who may change which model answers
JSON = "application/json"


class Service:
    """The service in a process of its own, on a free port, with what it writes in a folder."""

    def __init__(self, model: str, folder: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self.port = taken.getsockname()[1]
        keys, index = folder / "admin.txt", folder / "index"
        keys.write_text(f"{KEY}\n")
        for name in ("images", "runs"):
            (folder / name).mkdir()
        (folder / "images" / "one.jpg").write_bytes(photograph("JPEG"))
        search = ["--model", model, "--index", str(index), "--images", str(folder / "images")]
        subprocess.run([sys.executable, "-m", "jaxnets.search", *search], check=True, stdout=subprocess.DEVNULL)
        command = [sys.executable, "-m", "jaxnets.serve", "--model", f"{NAME}={model}", "--port", str(self.port)]
        command += ["--model", f"other={model}", "--shadow", f"{NAME}=other", "--index", f"{NAME}={index}"]
        command += ["--record", str(folder / "records"), "--record-mib", "1", "--cache", "8"]
        command += ["--admin-key-file", str(keys), "--candidates", str(folder / "runs")]
        # The limits on time are short, so that slow clients do not make this slow.
        self._process = subprocess.Popen([*command, "--timeout", "5"], stdout=subprocess.DEVNULL)

    def __enter__(self) -> "Service":
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and self.alive:
            try:
                if self.ask("GET", "/readyz") == 200:
                    return self
            except OSError:
                time.sleep(0.2)
        raise SystemExit(f"the service did not start (status {self._process.poll()})")

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(60)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def resident(self) -> float:
        """Returns MiB."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "image/jpeg") -> int:
        connection = self.connect()
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # refused midway: the answer may be there to read
                connection.request(
                    method, path, body, {"X-API-Key": KEY, **({"Content-Type": kind} if body is not None else {})}
                )
            answer = connection.getresponse()
            answer.read()
            return answer.status
        except (ConnectionResetError, http.client.ResponseNotReady, http.client.CannotSendRequest):
            return 0
        finally:
            connection.close()

    def predict(self, body: bytes) -> int:
        return self.ask("POST", PREDICT, body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="efficientnet_lite0", help="a run directory or the name of a model")
    parser.add_argument("--requests", type=int, default=5000, help="that schemathesis makes; 0: none")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--schemathesis", default="st", help="its command")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wrong = []
    with tempfile.TemporaryDirectory() as folder, Service(options.model, Path(folder)) as service:
        print(f"resident at the start: {service.resident():.0f} MiB", flush=True)
        wrong += mutated_images(service, options.images, random.Random(options.seed))
        wrong += attacks(service)
        if options.requests:
            wrong += from_description(service, options)
        print(f"resident at the end: {service.resident():.0f} MiB")
        if service.predict(photograph("JPEG")) != 200 or not service.alive:
            wrong.append("a sound image is not answered any more")
    print("\n".join(["", "WRONG:", *wrong]) if wrong else "\nall as it should be")
    sys.exit(bool(wrong))


def photograph(kind: str, side: int = 96) -> bytes:
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    small.save(file, kind)
    return file.getvalue()


def mutated_images(service: Service, count: int, draw: random.Random) -> list[str]:
    """Returns what went wrong."""
    seeds = [photograph(kind) for kind in ("JPEG", "PNG", "WEBP", "BMP")]
    seeds += [progressive(), palette(), alpha()]
    answers: Counter[int] = Counter()
    connection, before = service.connect(), 0.0
    for number in range(count):
        body = mutate(draw.choice(seeds), seeds, draw)
        connection.request("POST", PREDICT, body, {"Content-Type": "image/jpeg"})
        answer = connection.getresponse()
        answer.read()
        answers[answer.status] += 1
        if answer.will_close:
            connection.close()
        if number == count // 10:
            before = service.resident()
    after = service.resident()
    print(f"{count:,} mutated images: {told(answers)}; resident {before:.0f} → {after:.0f} MiB", flush=True)
    wrong = [f"{answers[status]} mutated images were answered by {status}" for status in answers if status in FAILED]
    if after - before > GROWTH:
        wrong.append(f"the memory grew by {after - before:.0f} MiB over the mutated images")
    return wrong


def mutate(content: bytes, others: list[bytes], draw: random.Random) -> bytes:
    """Returns an image's bytes with one to eight accidents."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4, 8))):
        at = draw.randrange(len(data)) if len(data) > 1 else 0
        match draw.randrange(7):
            case 0:
                data[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                data[at : at + 1] = bytes([data[at] ^ 1 << draw.randrange(8)]) if data else b"\0"
            case 2:
                del data[at:]
            case 3:
                del data[at : at + draw.randrange(64)]
            case 4:
                data[at:at] = data[at : at + draw.randrange(256)]
            case 5:
                data[at : at + 4] = struct.pack(draw.choice(("<I", ">I")), draw.choice((0, 1, 0xFFFF, 0xFFFFFFFF)))
            case 6:
                data[at:] = draw.choice(others)[at:]
        data = data or bytearray(b"\0")
    return bytes(data)


def progressive() -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(photograph("PNG"))).save(file, "JPEG", progressive=True)
    return file.getvalue()


def palette() -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(photograph("PNG"))).quantize(16).save(file, "PNG")
    return file.getvalue()


def alpha() -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(photograph("PNG"))).convert("RGBA").save(file, "WEBP", lossless=True)
    return file.getvalue()


def attacks(service: Service) -> list[str]:
    """Runs each attack, prints how it was answered, and returns what was answered otherwise than it should be."""
    jpeg = photograph("JPEG")
    climb = "/v1/models/../../etc/passwd/predict"
    tries: list[tuple[str, set[int], Callable[[], int]]] = [
        ("a PNG of 30,000 × 30,000 pixels", {413, 422}, lambda: service.predict(bomb(30_000))),
        ("a PNG that says 100 × 100 and holds 900 million", {200, 422}, lambda: service.predict(bomb(30_000, 100))),
        ("a WebP of 16,383 × 16,383", {413, 422}, lambda: service.predict(webp_bomb())),
        ("1 GB, its length said", {413, 0}, lambda: service.ask("POST", PREDICT, Endless(1 << 30))),  # type: ignore[arg-type]
        ("1 GB in chunks", {413, 0}, lambda: chunked(service, 1 << 30)),
        ("a body that never comes", {408}, lambda: slow(service, pieces=1, pause=0)),
        ("a byte a second", {408}, lambda: slow(service, pieces=60, pause=1)),
        ("headers that never end", {0}, lambda: half_a_header(service)),
        ("1,000 idle connections, then an image", {200}, lambda: idle(service, 1000, jpeg)),
        ("a model called ../../etc/passwd", {404}, lambda: service.ask("POST", climb, jpeg)),
        ("the same, encoded", {404}, lambda: service.ask("POST", "/v1/models/..%2f..%2fetc%2fpasswd/predict", jpeg)),
        ("a model called %00", {404}, lambda: service.ask("POST", "/v1/models/%00/predict", jpeg)),
        ("an SVG", {415}, lambda: service.ask("POST", PREDICT, SVG, "image/svg+xml")),
        ("an SVG that is called a JPEG", {415}, lambda: service.predict(SVG)),
        ("a text file", {415}, lambda: service.predict(b"hello, world\n" * 100)),
        ("a URL in place of an image", {415}, lambda: service.predict(b"http://169.254.169.254/latest/meta-data")),
        ("a JPEG with a ZIP behind it", {200}, lambda: service.predict(jpeg + zipped())),
        ("a PNG that begins as a PDF", {415}, lambda: service.predict(b"%PDF-1.7\n" + photograph("PNG"))),
        ("a GIF that is JavaScript as well", {415}, lambda: service.predict(b"GIF89a=1;alert(1)//" + b"\0" * 64)),
        ("a JPEG of 2,000 scans", {422}, lambda: service.predict(many_scans())),
        ("17 images in a form", {413}, lambda: service.ask("POST", PREDICT, form(17, jpeg), FORM)),
        ("a form without an end", {400}, lambda: service.ask("POST", PREDICT, form(2, jpeg)[:-20], FORM)),
        ("nothing", {400}, lambda: service.predict(b"")),
        ("JSON of 100,000 brackets", {400, 422}, lambda: service.ask("POST", PREDICT, b"[" * 100_000, JSON)),
        ("an image in JSON that is none", {415}, lambda: service.ask("POST", PREDICT, in_json(b"hello"), JSON)),
        ("a bomb in JSON", {413, 422}, lambda: service.ask("POST", PREDICT, in_json(bomb(30_000)), JSON)),
        ("17 images in JSON", {413}, lambda: service.ask("POST", PREDICT, in_json(*17 * [jpeg]), JSON)),
        ("a search for a bomb", {413, 422}, lambda: service.ask("POST", SEARCH, bomb(30_000))),
        ("a candidate called /etc", {403}, lambda: service.ask("POST", CANARY, b'{"model": "/etc"}', JSON)),
        ("one that climbs", {403}, lambda: service.ask("POST", CANARY, b'{"model": "../../../etc"}', JSON)),
        ("one at a URL", {403}, lambda: service.ask("POST", CANARY, b'{"model": "gs://bucket/run"}', JSON)),
        ("a candidate of a gigabyte", {413, 0}, lambda: service.ask("POST", CANARY, Endless(1 << 30), JSON)),  # type: ignore[arg-type]
    ]  # fmt: skip
    wrong, start = [], service.resident()
    for what, expected, attack in tries:
        began = time.monotonic()
        status = attack()
        taken = time.monotonic() - began
        print(f"  {what:48} {status or 'closed'}  {taken:5.1f} s, {service.resident():.0f} MiB", flush=True)
        if status not in expected or not service.alive:
            wrong.append(f"{what}: {status}, expected {' or '.join(map(str, sorted(expected)))}")
        if service.predict(jpeg) != 200:
            wrong.append(f"after {what} a sound image is not answered")
    if (grown := service.resident() - start) > GROWTH:
        wrong.append(f"the memory grew by {grown:.0f} MiB over the attacks")
    return wrong


SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/><script>alert(1)</script></svg>'
FORM = "multipart/form-data; boundary=x"


def in_json(*images: bytes) -> bytes:
    return json.dumps({"images": [base64.b64encode(image).decode() for image in images]}).encode()


class Endless(io.RawIOBase):
    """As many zeros as asked for, which nobody holds in memory."""

    def __init__(self, length: int) -> None:
        self._left = length
        self._length = length

    def __len__(self) -> int:
        return self._length

    def read(self, size: int = -1) -> bytes:
        size = min(self._left, size if size > 0 else 1 << 16)
        self._left -= size
        return bytes(size)


def bomb(side: int, said: int | None = None) -> bytes:
    """Returns a PNG of side × side grey pixels in few bytes, whose header may say otherwise."""
    compress = zlib.compressobj(9)
    row = bytes(side + 1)
    data = b"".join(compress.compress(row) for _ in range(side)) + compress.flush()
    header = struct.pack(">IIBBBBB", said or side, said or side, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    packed = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def webp_bomb() -> bytes:
    """Returns a WebP whose header says the largest size there is."""
    content = bytearray(photograph("WEBP"))
    at = content.index(b"\x9d\x01\x2a") + 3  # begins the size of a lossy image (RFC 6386, section 9.1)
    content[at : at + 4] = struct.pack("<HH", 0x3FFF, 0x3FFF)
    return bytes(content)


def many_scans() -> bytes:
    content = progressive()
    at = content.rindex(b"\xff\xda")
    return content[:at] + content[at:-2] * 2000 + content[-2:]


def zipped() -> bytes:
    import zipfile

    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("run.sh", "rm -rf /")
    return file.getvalue()


def form(count: int, content: bytes) -> bytes:
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="../../a.jpg"\r\n\r\n'
    return b"".join(head + content + b"\r\n" for _ in range(count)) + b"--x--\r\n"


def chunked(service: Service, length: int) -> int:
    def pieces() -> Iterator[bytes]:
        for _ in range(length >> 16):
            yield bytes(1 << 16)

    connection = service.connect()
    with suppress(BrokenPipeError, ConnectionResetError):  # refused midway: the answer is there to read
        connection.request("POST", PREDICT, pieces(), {"Content-Type": "image/jpeg"}, encode_chunked=True)
    try:
        return connection.getresponse().status
    except ConnectionResetError:
        return 0
    finally:
        connection.close()


def slow(service: Service, pieces: int, pause: float) -> int:
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as line:
        line.sendall(f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n".encode())
        for _ in range(pieces):
            try:
                line.sendall(b"x")
            except OSError:
                break
            time.sleep(pause)
            line.setblocking(False)
            try:
                if line.recv(1, socket.MSG_PEEK):
                    break
            except BlockingIOError:
                pass
            line.settimeout(60)
        line.settimeout(60)
        return status_of(line)


def half_a_header(service: Service) -> int:
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as line:
        line.sendall(f"POST {PREDICT} HTTP/1.1\r\nX-Long: ".encode())
        return status_of(line)


def status_of(line: socket.socket) -> int:
    """Returns the answer's status, or 0 if the connection is closed without one."""
    try:
        head = line.recv(64)
    except ConnectionResetError:
        return 0
    return int(head.split(b" ")[1]) if head else 0


def idle(service: Service, count: int, image: bytes) -> int:
    lines = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(count)]
    try:
        return service.predict(image)
    finally:
        for line in lines:
            line.close()


def from_description(service: Service, options: argparse.Namespace) -> list[str]:
    """Has schemathesis make requests of the OpenAPI description, and returns what it found."""
    before = sent(service)
    wrong = []
    rounds = 0
    while (made := sent(service) - before) < options.requests and rounds < 50:
        command = [options.schemathesis, "run", f"http://127.0.0.1:{service.port}/openapi.json", "--max-examples=1000"]
        checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
        command += [f"--checks={checks}", "--phases=examples,coverage,fuzzing", f"--seed={options.seed + rounds}"]
        command += [f"--header=X-API-Key: {KEY}"]
        with tempfile.TemporaryDirectory() as folder:  # for what it keeps
            found = subprocess.run(
                [*command, "--continue-on-failure"], capture_output=True, text=True, env=plain_output(), cwd=folder
            )
        rounds += 1
        if found.returncode:
            wrong.append(f"schemathesis, seed {options.seed + rounds - 1}:\n{(found.stdout + found.stderr)[-6000:]}")
            break
        print(f"  {sent(service) - before:,} requests, {service.resident():.0f} MiB", flush=True)
        if sent(service) - before == made:
            wrong.append("schemathesis sent nothing")
            break
    made = sent(service) - before
    print(f"{made:,} requests of the OpenAPI description; by status since the start: {told(statuses(service))}")
    failed = sum(statuses(service)[status] for status in FAILED)
    return [*wrong, f"{failed} requests were answered by 500 or 502"] if failed else wrong


def plain_output() -> dict[str, str]:
    return os.environ | {"NO_COLOR": "1", "COLUMNS": "160"}


def statuses(service: Service) -> Counter[int]:
    connection = service.connect()
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    found: Counter[int] = Counter()
    for status, count in re.findall(r'^jaxnets_requests_total\{.*status="(\d+)".*\} ([\d.e+]+)$', text, re.M):
        found[int(status)] += int(float(count))
    return found


def sent(service: Service) -> int:
    return sum(statuses(service).values())


def told(answers: Counter[int]) -> str:
    return ", ".join(f"{status}: {count:,}" for status, count in sorted(answers.items()))


if __name__ == "__main__":
    main()
