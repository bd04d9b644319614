"""Times the service against the same work without HTTP, and against a plain FastAPI and PyTorch server.

python benchmarks/serving.py [--model efficientnet_lite0] [--image F.jpg] [--seconds 10 --repeats 3] [--torch PYTHON]

Both sides take turns in one run on the same cores, with the load generator on them too: wrk
(https://github.com/wg/wrk, `apt-get install wrk`). At full load some connections ask again at once; at a part of it,
many pause for exponential times in between, so that requests arrive at random. At an overload, where those accepted and
those refused count apart, a client in Python sends at random times whether or not the earlier ones are answered. The
first lines of the service's log say how many threads it has and how many images go through the model at once. --torch
names a Python interpreter that has torch, timm, fastapi and uvicorn. --only-workers times what several processes and a
cache change, and nothing else.
"""

import argparse
import asyncio
import io
import os
import random
import re
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from machine import machine
from servers import Process, Service, TorchServer, wrk

from jaxnets.cores import cores

CLIENT_SENDS = 2000  # requests a second that the client in Python sends in time
BURST_SECONDS = 1.0  # of an overload that do not count: it begins with the burst that an idle service takes
AT_RANDOM = 64  # connections that pause for random times
SEVERAL = 16  # connections, so that each of several processes has some
PATIENT = ("--latency", 0.2)  # so that none of them is refused


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
    parser.add_argument("--only-workers", action="store_true", help="time several processes and the cache alone")
    options = parser.parse_args()
    content = options.image.read_bytes() if options.image else drawn()
    print(f"{machine()}, load before: {os.getloadavg()[0]:.1f}; {len(content):,} bytes an image")
    if options.only_workers:
        several(options, content)
        return
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


def several(options, content: bytes) -> None:
    """Times 1, 2 and as many processes as cores, and a cache that knows nothing or everything, all taking turns."""
    rows = {f"--workers {count}": (("--workers", count), count, False) for count in sorted({1, 2, cores()})}
    rows["--cache 64, misses"] = (("--cache", 64), 1, True)
    rows["--cache 64, hits"] = (("--cache", 64), 1, False)
    rates: dict[str, list[float]] = {name: [] for name in rows}
    said: dict[str, str] = {}
    with tempfile.NamedTemporaryFile(suffix=".jpg") as file:
        file.write(content)
        file.flush()
        for _ in range(options.repeats):
            for name, (arguments, count, different) in rows.items():
                with Service(options.model, *arguments, *PATIENT) as service:
                    service.wait_for(count)
                    wrk(service.url, file.name, 1, 1)  # warms up, and fills the cache
                    good, bad, duration, p50, p99 = wrk(
                        service.url, file.name, options.seconds, SEVERAL, different=different
                    )
                    rates[name].append(good / duration)
                    said[name] = f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, {bad:.0f} refused, {service.resident():.0f} MiB"
    base = statistics.median(rates["--workers 1"])
    for name, found in rates.items():
        rate = statistics.median(found)
        print(f"{name:<19}{rate:8.1f} requests/s  {rate / base:6.2f} ×   ({spread(found)}; the last: {said[name]})")


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
