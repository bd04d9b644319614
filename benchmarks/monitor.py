"""Measures the monitor: what it finds and how often it errs, what a million records take, what records cost a service.

python benchmarks/monitor.py drift --run runs/fashion [--window 500 --seeds 1]
python benchmarks/monitor.py million [--records 1000000]
python benchmarks/monitor.py ab [--runs 2000 --records 20000]
python benchmarks/monitor.py service [--model efficientnet_lite0] [--image F.jpg] [--seconds 10 --repeats 5]

drift: the run's held-out images (validation and test together, shuffled) are divided into a reference and windows, 20
without drift and 20 with each of eight shifts, made of the same images by the same answers that the service records.
With more --seeds this is repeated with other divisions. The run is Fashion-MNIST's:

python -m jaxnets.main --config fashion_mnist --config.epochs=2 --config.data.source=idx:DIR --workdir runs/fashion

million: the command over a log of so many records: seconds, and its largest memory.

ab: A/B tests that are simulated: how often a difference is said where there is none, with a look every 100 records, and
how many records it takes to find one.

service: two services, one of which records, take turns under the same load; what counts is the ratio of each turn.
"""

import argparse
import io
import os
import pickle
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ab import ab, add_options
from machine import machine

WINDOWS = 20
BLUR, BRIGHTER, NOISE, PRIOR, NEW, SMALLER, GAMMA, QUALITY = 0.7, 20, 8, 0.25, 0.1, 0.85, 1.5, 50


def blur(image, random):
    import cv2

    return cv2.GaussianBlur(image, (0, 0), BLUR).reshape(image.shape)


def brightness(image, random):
    return np.clip(image.astype(int) + BRIGHTER, 0, 255).astype(np.uint8)


def noise(image, random):
    return np.clip(np.rint(image + random.normal(0, NOISE, image.shape)), 0, 255).astype(np.uint8)


def smaller(image, random):
    import cv2

    height, width, channels = image.shape
    rows, columns = round(SMALLER * height), round(SMALLER * width)
    made = np.zeros_like(image)
    top, left = (height - rows) // 2, (width - columns) // 2
    shrunk = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA)
    made[top : top + rows, left : left + columns] = shrunk.reshape(rows, columns, channels)
    return made


def gamma(image, random):
    return np.rint(255 * (image / 255.0) ** GAMMA).astype(np.uint8)


def jpeg(image, random):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(file, "JPEG", quality=QUALITY)
    return np.asarray(Image.open(file)).reshape(image.shape)


SHIFTS: dict[str, tuple[str, Callable | None]] = {
    "none": ("", None),
    "blur": (f"Gaussian, σ = {BLUR} pixels", blur),
    "brightness": (f"{BRIGHTER} of 255 more", brightness),
    "noise": (f"Gaussian, σ = {NOISE} of 255", noise),
    "class prior": (f"one class, another in each window, has {PRIOR:.0%} of the images and not 10 %", None),
    "new class": (f"{NEW:.0%} of the images are scikit-learn's digits", None),
    "smaller objects": (f"{SMALLER:.0%} of their height and width", smaller),
    "other camera": (f"gamma {GAMMA}", gamma),
    "JPEG quality": (f"{QUALITY}, of images that were without loss", jpeg),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    found = commands.add_parser("drift")
    found.add_argument("--run", required=True)
    found.add_argument("--window", type=int, default=500, help="records of a window")
    found.add_argument("--reference", type=int, default=6000, help="images of the reference")
    found.add_argument("--images", type=int, default=20_000, help="that are shifted; of fewer, windows are drawn")
    found.add_argument("--seeds", type=int, default=1, help="divisions")
    found.add_argument("--cache", type=Path, help="a file that keeps the answers, which take longest")
    found.set_defaults(command=drift)
    found = commands.add_parser("million")
    found.add_argument("--records", type=int, default=1_000_000)
    found.set_defaults(command=million)
    found = commands.add_parser("ab")
    add_options(found)
    found.set_defaults(command=ab)
    found = commands.add_parser("service")
    found.add_argument("--model", default="efficientnet_lite0")
    found.add_argument("--image", type=Path, help="a JPEG (default: one of 320×240 that is drawn)")
    found.add_argument("--seconds", type=float, default=10)
    found.add_argument("--repeats", type=int, default=5)
    found.add_argument("--connections", type=int, default=6)
    found.set_defaults(command=service)
    options = parser.parse_args()
    print(f"{machine()}, load before: {os.getloadavg()[0]:.1f}", flush=True)
    options.command(options)


# What is found


def held_out(run: str):
    """Returns the run's classifier, and the images and classes of its validation and test splits."""
    from jaxnets.evaluate.run import open_data
    from jaxnets.loading import load
    from jaxnets.run.directory import open_run

    directory = open_run(run)
    data = open_data(directory.read_config(), directory.read_model(), "test", None)
    images, labels = [], []
    for name in ("validation", "test"):
        if name in data.splits:
            examples = data.split(name)
            images.append(np.stack([examples.read(i).image for i in range(len(examples))]))
            labels.append(np.asarray(examples.labels))
    return load(run), np.concatenate(images), np.concatenate(labels)


def strangers(shape, count: int) -> np.ndarray:
    """Returns scikit-learn's digits as large as the images."""
    import cv2
    from sklearn.datasets import load_digits

    digits = np.rint(load_digits().images[:count] * (255 / 16)).astype(np.uint8)
    large = [cv2.resize(digit, shape[1::-1], interpolation=cv2.INTER_CUBIC) for digit in digits]
    return np.repeat(np.stack(large)[..., None], shape[2], 3)


def observed(observer, images: np.ndarray) -> np.ndarray:
    """Returns the records of images, as the service makes them."""
    sizes = [images.shape[1:3]] * 64
    each = [
        observer.records((rows := observer.rows(images[start : start + 64])), sizes[: len(rows)])
        for start in range(0, len(images), 64)
    ]
    return np.concatenate(each)


def drift(options) -> None:
    from jaxnets.monitor.judge import Bounds, judge
    from jaxnets.monitor.records import Records

    start = time.perf_counter()
    if options.cache is None or not options.cache.is_file():
        content = answers(options)
        if options.cache is not None:
            options.cache.write_bytes(pickle.dumps(content))
    else:
        content = pickle.loads(options.cache.read_bytes())
    about, rows, strange, labels, images = content
    print(f"{images:,} answers, {time.perf_counter() - start:.0f} s", flush=True)
    for name, of_shift in rows.items():
        places = np.flatnonzero(of_shift["width"])
        print(f"  {name}: accuracy {(of_shift['label'] == labels)[places].mean():.2%} of {len(places):,}", flush=True)
    found: dict[str, list[tuple[str, ...]]] = {name: [] for name in SHIFTS}
    start = time.perf_counter()
    for seed in range(options.seeds):
        random = np.random.default_rng(seed)
        order = division(labels, seed)
        reference = Records(about=about, rows=rows["none"][order[: options.reference]])
        rest = order[options.reference :]
        if len(rest) < WINDOWS * options.window:
            print(f"note: {len(rest):,} images for {WINDOWS} windows of {options.window}: windows share some")
        for name in SHIFTS:
            for number in range(WINDOWS):
                window = shifted(name, options, rows, rest, labels, strange, number, random)
                judged = judge(reference, Records(about=about, rows=window), Bounds(), seed=number)
                found[name].append(judged.crossed)
            print(f"  {name}: {sum(map(bool, found[name]))} after {time.perf_counter() - start:.0f} s", flush=True)
    print(f"\n{WINDOWS} windows of {options.window} records each, against {options.reference:,}:\n")
    print("| shift | strength | windows found | by |\n|---|---|---|---|")
    for name, crossed in found.items():
        tests = sorted({test for each in crossed for test in each})
        by = ", ".join(f"{test} {sum(test in each for each in crossed)}" for test in tests)
        print(f"| {name} | {SHIFTS[name][0]} | {sum(map(bool, crossed))} of {len(crossed)} | {by} |")


def answers(options):
    """Returns of which model they are, the records by shift, those of strangers, the classes and how many were made.

    Of a shift those records are made that windows need; the others are empty.
    """
    from jaxnets.monitor.observe import Observer
    from jaxnets.monitor.records import RECORD

    classifier, images, labels = held_out(options.run)
    observer = Observer(classifier.observing(), "it")
    random, made = np.random.default_rng(0), 0
    some = division(labels, 0)[options.reference :][: options.images]
    rows = {}
    for name, (_, change) in SHIFTS.items():
        if change is None and name != "none":
            continue
        places = some if change is not None else np.arange(len(images))
        if options.seeds > 1:
            places = np.arange(len(images))
        chosen = images[places] if change is None else np.stack([change(images[i], random) for i in places])
        rows[name] = np.zeros(len(images), RECORD)
        rows[name][places] = observed(observer, chosen)
        made += len(places)
        print(f"  {name}: {len(places):,} answers", flush=True)
    strange = observed(observer, strangers(images.shape[1:], 500))
    return observer.about, rows, strange, labels, made + len(strange)


def division(labels: np.ndarray, seed: int) -> np.ndarray:
    """Returns the order of the images: first those of the reference, then those of windows."""
    return np.random.default_rng(seed).permutation(len(labels))


def shifted(name, options, rows, rest, labels, strange, number: int, random) -> np.ndarray:
    """Returns the records of one window: without a shift of images that no other window has, else drawn."""
    size = options.window
    places = np.arange(number * size, (number + 1) * size) % len(rest)
    clean = rows["none"][rest[places]]
    if name == "class prior":
        of_class = labels[rest] == number % (labels.max() + 1)
        more = round(PRIOR * size)
        chosen = [random.choice(rest[of_class], more, replace=False)]
        chosen.append(random.choice(rest[~of_class], size - more, replace=False))
        return random.permutation(rows["none"][np.concatenate(chosen)])
    if name == "new class":
        count = round(NEW * size)
        return random.permutation(np.concatenate([clean[count:], strange[random.choice(len(strange), count)]]))
    there = rest[rows[name]["width"][rest] > 0]
    if len(there) >= WINDOWS * size:
        return rows[name][there[places]]
    return rows[name][random.choice(there, size, replace=False)]


# What a million records take


def million(options) -> None:
    from jaxnets.monitor.records import PROJECTED, RECORD, SUFFIX, About

    random = np.random.default_rng(0)
    labels = tuple(f"class {i}" for i in range(10))
    about = About(
        model="it", architecture="none", fingerprint="0" * 16, step=1, labels=labels, several_labels=False,
        calibrated=True, features=64,
    )  # fmt: skip

    def drawn(count: int) -> np.ndarray:
        rows = np.zeros(count, RECORD)
        rows["id"], rows["time"] = np.arange(count), 1.7e9 + np.sort(random.uniform(0, 86400, count))
        rows["label"], rows["truth"] = random.integers(0, 10, count), -1
        rows["confidence"], rows["energy"] = random.beta(8, 1, count), random.normal(-8, 2, count)
        rows["brightness"], rows["sharpness"] = random.beta(4, 6, count), random.gamma(4, 0.02, count)
        rows["width"], rows["height"] = random.integers(200, 4000, (2, count))
        rows["latency"] = random.gamma(4, 0.005, count)
        rows["projection"] = random.normal(0, 1, (count, PROJECTED)) @ random.normal(0, 1, (PROJECTED, PROJECTED))
        return rows

    with tempfile.TemporaryDirectory() as folder:
        rows, base = drawn(options.records + 20_000), Path(folder)
        for name, chosen in (("log", rows[20_000:]), ("reference", rows[:20_000])):
            (base / name / "it").mkdir(parents=True)
            for number, part in enumerate(np.array_split(chosen, max(len(chosen) // 500_000, 1))):
                (base / name / "it" / f"{number}{SUFFIX}").write_bytes(about.to_line() + part.tobytes())
        arguments = ["--reference", str(base / "reference"), "--log", str(base / "log")]
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "jaxnets.monitor", *arguments], check=False)
        duration = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        busy, memory = used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20
        print(
            f"status {done.returncode}; {options.records:,} records: {duration:.1f} s ({busy:.1f} s of a core's time), "
            f"{memory:.2f} GiB"
        )


# What records cost a service


def service(options) -> None:
    from servers import Service
    from serving import drawn

    content = options.image.read_bytes() if options.image else drawn()
    with (
        tempfile.TemporaryDirectory() as folder,
        Service(options.model) as plain,
        Service(options.model, "--record", folder) as recording,
    ):
        sides = {"without records": plain, "with records": recording}
        for each in sides.values():
            load(each.port, content, options.connections, 2)
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(options.repeats):
            for name in list(sides) if turn % 2 else list(sides)[::-1]:
                (other,) = (each for key, each in sides.items() if key != name)
                other.pause()
                rates[name].append(load(sides[name].port, content, options.connections, options.seconds))
                other.resume()
        for name, each in rates.items():
            said = ", ".join(f"{rate:.1f}" for rate in each)
            print(f"{name:16s} {statistics.median(each):7.1f} requests/s ({said}), {sides[name].resident():.0f} MiB")
        ratios = [b / a for a, b in zip(*rates.values(), strict=True)]
        said = ", ".join(f"{ratio:.3f}" for ratio in sorted(ratios))
        print(f"with / without: median {statistics.median(ratios):.3f} ({said})")
        written = sum(file.stat().st_size for file in Path(folder).rglob("*.records"))
        print(f"{written / 2**20:.1f} MiB of records")


CLIENT = """
import http.client, sys, threading, time
port, connections, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
content, good, end = sys.stdin.buffer.read(), [0] * connections, time.perf_counter() + seconds
def ask(number):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    while time.perf_counter() < end:
        connection.request("POST", "/v1/models/it/predict", content, {"Content-Type": "image/jpeg"})
        answer = connection.getresponse()
        answer.read()
        good[number] += answer.status == 200
threads = [threading.Thread(target=ask, args=[i]) for i in range(connections)]
start = time.perf_counter()
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sum(good) / (time.perf_counter() - start))
"""


def load(port: int, content: bytes, connections: int, seconds: float) -> float:
    """Returns the requests a second that are answered while some connections ask again and again."""
    command = [sys.executable, "-c", CLIENT, str(port), str(connections), str(seconds)]
    return float(subprocess.run(command, input=content, capture_output=True, check=True).stdout)


if __name__ == "__main__":
    main()
