"""Times the service against the same work without HTTP, and against a plain FastAPI and PyTorch server.

python benchmarks/serving.py [--model efficientnet_lite0] [--image F.jpg] [--seconds 10 --repeats 3] [--torch PYTHON]

Both sides take turns in one run on the same cores, with the load generator on them too: wrk
(https://github.com/wg/wrk, `apt-get install wrk`). At full load some connections ask again at once; at a part of it,
many pause for exponential times in between, so that requests arrive at random. At an overload, where those accepted and
those refused count apart, a client in Python sends at random times whether or not the earlier ones are answered. The
first lines of the service's log say how many workers it has and how many images go through the model at once. --torch
names a Python interpreter that has torch, timm, fastapi and uvicorn.
"""

import argparse
import asyncio
import io
import json
import os
import random
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from machine import machine

CLIENT_SENDS = 2000  # requests a second that the client in Python sends in time
BURST_SECONDS = 1.0  # of an overload that do not count: it begins with the burst that an idle service takes
AT_RANDOM = 64  # connections that pause for random times
PAUSES = """
math.randomseed(0)
function delay() return -%f * math.log(1 - math.random()) end
"""
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "image/jpeg"
local file = io.open("%s", "rb")
wrk.body = file:read("*a")
file:close()
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init(args) good, bad = 0, 0 end
function response(status) if status == 200 then good = good + 1 else bad = bad + 1 end end
function done(summary, latency)
  local good, bad = 0, 0
  for _, thread in ipairs(threads) do good = good + thread:get("good"); bad = bad + thread:get("bad") end
  print(string.format("RESULT %%d %%d %%f %%f %%f", good, bad, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""

TORCH_SERVER = """
import io, sys
import numpy as np, timm, torch, uvicorn
from fastapi import FastAPI, Request
from PIL import Image

name, size = sys.argv[2], int(sys.argv[3])
model = timm.create_model(name).eval()
app = FastAPI()

@app.post("/predict")
async def predict(request: Request):
    image = Image.open(io.BytesIO(await request.body())).convert("RGB").resize((size, size), Image.BICUBIC)
    x = (torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.5
    with torch.inference_mode():
        p = model(x).softmax(-1)[0]
    best = p.topk(5)
    return {"top": [{"label": int(i), "probability": float(v)} for v, i in zip(best.values, best.indices)]}

uvicorn.run(app, port=int(sys.argv[1]), log_level="critical", access_log=False)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="efficientnet_lite0", help="a run directory or the name of a model")
    parser.add_argument("--image", type=Path, help="a JPEG (default: one of 320×240 that is drawn)")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--connections", type=int, default=6,
        help="of wrk at full load: as many as the queue takes, since who is refused asks again at once",
    )  # fmt: skip
    parser.add_argument("--soak", type=int, default=0, help="requests afterwards, over which memory is watched")
    parser.add_argument("--torch", help="a Python interpreter that has torch and timm")
    parser.add_argument("--torch-model", default="tf_efficientnet_lite0", help="of timm: the same network")
    parser.add_argument("--torch-size", type=int, default=224)
    options = parser.parse_args()
    content = options.image.read_bytes() if options.image else drawn()
    print(f"{machine()}, load before: {os.getloadavg()[0]:.1f}; {len(content):,} bytes an image")
    with tempfile.NamedTemporaryFile(suffix=".jpg") as file, Service(options.model) as service:
        file.write(content)
        file.flush()
        described = service.described
        workers, batch = described["workers"], described["batch"]
        wrk(service.url, file.name, 2, 1)  # warms up
        alone, served = [], []
        for _ in range(options.repeats):
            service.pause()
            alone.append(without_http(options, content, workers, batch, options.seconds))
            service.resume()
            served.append(wrk(service.url, file.name, options.seconds, options.connections))
        base, rate = statistics.median(alone), statistics.median(good / duration for good, _, duration, _, _ in served)
        print(f"without HTTP     {base:7.1f} images/s ({spread(alone)}), {workers} × batches of {batch}")
        refused = sum(bad for _, bad, _, _, _ in served)
        p99 = max(p99 for _, _, _, _, p99 in served)
        print(
            f"service, wrk     {rate:7.1f} requests/s  {rate / base:.2f} ×   "
            f"({options.connections} connections, p99 {p99:.1f} ms, {refused:.0f} refused)"
        )
        partial = [
            wrk(service.url, file.name, options.seconds, AT_RANDOM, pause=1e3 * AT_RANDOM / (0.7 * rate))
            for _ in range(3)
        ]
        for good, bad, duration, p50, p99 in partial:
            asked = (good + bad) / duration
            print(
                f"at random        {asked:7.1f} requests/s, {asked / rate:.0%}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
                f"{bad:.0f} refused"
            )
        if 5 * rate < CLIENT_SENDS:
            found = asyncio.run(at_random(service, content, 5 * rate, min(options.seconds, 5)))
            print(f"at 500 %         {5 * rate:7.1f} requests/s: {found}")
        print(f"resident {service.resident():.0f} MiB")
        answered, resident = 0, []
        while answered < options.soak:
            good, *_ = wrk(service.url, file.name, options.seconds, options.connections)
            answered += int(good)
            resident.append(service.resident())
        if options.soak:
            tenths = [f"{resident[len(resident) * i // 10]:.0f}" for i in range(10)] + [f"{resident[-1]:.0f}"]
            print(f"resident over {answered:,} requests, MiB: {', '.join(tenths)}")
    if options.torch:
        with tempfile.NamedTemporaryFile(suffix=".jpg") as file, TorchServer(options) as other:
            file.write(content)
            file.flush()
            found = [wrk(other.url, file.name, options.seconds, options.connections) for _ in range(options.repeats)]
            plain = statistics.median(good / duration for good, _, duration, _, _ in found)
            print(f"FastAPI + torch  {plain:7.1f} requests/s ({options.torch_model}); the service {rate / plain:.2f} ×")


def drawn() -> bytes:
    """Returns a JPEG of smooth colours and a little noise, about as hard to decode as a photograph."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8)).resize((320, 240), Image.Resampling.BICUBIC)
    noisy = np.asarray(small).astype(int) + rng.normal(0, 8, (240, 320, 3))
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=88)
    return file.getvalue()


_classifiers: dict = {}


def without_http(options, content: bytes, workers: int, batch: int, seconds: float) -> float:
    """Returns images a second of decoding, fitting and predicting in as many threads as the service has workers."""
    import numpy as np

    import jaxnets
    from jaxnets.data.decode import decode

    if options.model not in _classifiers:
        _classifiers[options.model] = jaxnets.load(options.model).with_threads(1 if workers > 1 else None)
    classifier = _classifiers[options.model]
    classifier.engine.probabilities(np.zeros((1, *fitted_shape(classifier)), np.uint8))  # opens it
    end = time.perf_counter() + seconds

    def work(_: int) -> int:
        done = 0
        while time.perf_counter() < end:
            images = [classifier.preprocess.fit(decode(io.BytesIO(content), "image")) for _ in range(batch)]
            classifier.engine.probabilities(np.stack(images))
            done += batch
        return done

    start = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        done = sum(pool.map(work, range(workers)))
    return done / (time.perf_counter() - start)


def fitted_shape(classifier) -> tuple[int, int, int]:
    size = classifier.preprocess
    return size.height, size.width, size.channels


class Process:
    """A server in a process of its own, on a free port."""

    def __init__(self, command, port: int, path: str) -> None:
        self.url = f"http://127.0.0.1:{port}{path}"
        self.port = port
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def __enter__(self):
        deadline = time.monotonic() + 120
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return self
            except ConnectionRefusedError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the server did not start (status {self.process.poll()})") from None
                time.sleep(0.2)

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait(30)

    def pause(self) -> None:
        self.process.send_signal(19)  # SIGSTOP: it shares the cores

    def resume(self) -> None:
        self.process.send_signal(18)

    def resident(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


class Service(Process):
    def __init__(self, model: str) -> None:
        port = free_port()
        command = [sys.executable, "-m", "jaxnets.serve", "--model", f"it={model}", "--port", str(port)]
        super().__init__(command, port, "/v1/models/it/predict")

    @property
    def described(self) -> dict:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/models") as answer:
            return json.load(answer)["models"][0]


class TorchServer(Process):
    def __init__(self, options) -> None:
        port = free_port()
        arguments = [str(port), options.torch_model, str(options.torch_size)]
        super().__init__([options.torch, "-c", TORCH_SERVER, *arguments], port, "/predict")


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def wrk(
    url: str, image: str, seconds: float, connections: int, pause: float = 0.0
) -> tuple[float, float, float, float, float]:
    """Returns answers, refusals, seconds, and the p50 and p99 of all in ms; connections pause for so many ms."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % image + (PAUSES % pause if pause else ""))
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", script.name, url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    good, bad, duration, p50, p99 = (float(number) for number in re.search(r"RESULT (.*)", output)[1].split())
    return good, bad, duration, p50, p99


async def at_random(service: Process, content: bytes, rate: float, seconds: float) -> str:
    """Says how long those that were accepted and those that were refused took; requests leave at random times."""
    path = service.url.partition(str(service.port))[2]
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
    message, free, tasks = head.encode() + content, [], []
    accepted: list[float] = []
    refused: list[float] = []

    async def one(due: float) -> None:
        reader, writer = free.pop() if free else await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(message)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", answer)[1])
        await reader.readexactly(length)
        if due - began > BURST_SECONDS:
            (accepted if answer.startswith(b"HTTP/1.1 200") else refused).append(time.perf_counter() - due)
        free.append((reader, writer))

    draw, due = random.Random(0), time.perf_counter()
    began = due
    end = due + BURST_SECONDS + seconds
    while due < end:
        due += draw.expovariate(rate)
        if (pause := due - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    for _, writer in free:
        writer.close()
    return f"{latency('accepted', accepted)}; {latency('refused', refused)}"


def latency(what: str, seconds: list[float]) -> str:
    p50, p99 = (1e3 * percentile(seconds, share) for share in (0.5, 0.99))
    return f"{len(seconds)} {what}" + (f", p50 {p50:.1f} ms, p99 {p99:.1f} ms" if seconds else "")


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(share * len(values)), len(values) - 1)] if values else float("nan")


def spread(values: list[float]) -> str:
    return f"{min(values):.1f} … {max(values):.1f}, n = {len(values)}"


if __name__ == "__main__":
    main()
