"""The whole loop: serve, notice drift, choose images, label, train on, compare, try on a growing share, take over.

python launch/closed_loop.py --source idx:DIR --workdir runs/loop      # Fashion-MNIST
python launch/closed_loop.py --workdir runs/loop                       # scikit-learn's digits

Every part is a command of jaxnets, as a person would type it. A camera slips on purpose: from some moment on, the
images that are asked about are turned by 20° and dimmed to 80 %. Labels, which a person would give, come from the
data. Requests go on all the time. Before the better model comes one that was trained on wrong labels: it must be sent
back by itself. What must hold is printed with a tick or a cross; the status is 1 where something does not.
"""

import argparse
import csv
import io
import json
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from traffic import Question, Traffic, free_port, wait_for

from jaxnets import cli
from jaxnets.config import DataConfig
from jaxnets.data.sources import open_source
from jaxnets.errors import UserError
from jaxnets.select.checking import Checking

NAME = "clothes"
MODEL = "resnet8_cifar"
TURNED, DIMMED = 20, 0.8  # degrees, and the share of the light that is left
SHARES = {"asked": 0.4, "pool": 0.3, "test": 0.3}  # of the test images: asked about, chosen from, and judged by
MOST = {"asked": 2000, "pool": 2000, "test": 2000, "old": 6000}  # images, the old ones that are trained on again too
CANARY = (
    "--canary-steps", "10,50,100", "--canary-window", "3", "--canary-requests", "40", "--canary-compare", "0.5",
    "--canary-latency", "5", "--canary-disagreement", "0.6", "--shadow-time", "0.5",
)  # fmt: skip
PATIENCE = 240  # seconds that a candidate has


def main() -> None:
    parser = argparse.ArgumentParser(prog="python launch/closed_loop.py", description="Run the whole loop once.")
    parser.add_argument("--source", default="digits", help="as config.data.source (default: digits)")
    parser.add_argument("--workdir", required=True, type=Path, help="a new folder for runs, images and records")
    parser.add_argument("--steps", type=int, default=600, help="of the first training (default 600)")
    parser.add_argument("--more-steps", type=int, default=300, help="of the one on chosen images (default 300)")
    parser.add_argument("--count", type=int, default=400, help="images to label, at most half of the pool")
    parser.add_argument("--rate", type=float, default=40, help="requests a second (default 40)")
    cli.run(parser, _run)


def _run(options: argparse.Namespace, _: list[str]) -> int:
    if options.workdir.exists() and any(options.workdir.iterdir()):
        raise UserError(f"--workdir {options.workdir} is not empty: give a new folder")
    loop = Loop(options.workdir.absolute(), options)
    loop.run()
    failed = [what for what, holds in loop.checks if not holds]
    (loop.home / "loop.json").write_text(json.dumps({"checks": loop.checks, "seconds": loop.seconds}, indent=1))
    print(f"\n{len(loop.checks) - len(failed)} of {len(loop.checks)} hold, after {loop.seconds:.0f} s")
    return 1 if failed else 0


class Loop:
    def __init__(self, home: Path, options: argparse.Namespace) -> None:
        self.home, self.options = home, options
        self.checks: list[tuple[str, bool]] = []
        self.began = time.monotonic()
        source = open_source(DataConfig(source=options.source), 0)
        self.names = source.class_names
        self.train, test = source.splits["train"], source.splits["test"]
        order = np.random.default_rng(0).permutation(len(test))
        self.parts: dict[str, np.ndarray] = {}
        first = 0
        for part, share in SHARES.items():
            last = first + int(share * len(test))
            self.parts[part] = order[first:last][: MOST[part]]
            first = last
        self.test = test
        self.data = {
            "data.source": options.source,
            "data.image_size": test.image(0).shape[0],
            "data.validation": 0.1,
            "model.name": MODEL,
            "schedule.warmup_epochs": 0.2,
        }

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def check(self, what: str, holds: bool) -> None:
        print(f"{self.seconds:6.0f} s  {'✓' if holds else '✗'} {what}", flush=True)
        self.checks.append((what, bool(holds)))

    def run(self) -> None:
        self._images()
        self._fit("old", self.data | {"steps": self.options.steps})
        with self._service() as (traffic, address):
            self._drift(traffic)
            table = self._label()
            self._fit("new", self._more(table, "new"))
            self._fit("bad", self._more(self._wrong(table), "bad"))
            self._compare()
            self._send_back(traffic, address)
            self._take_over(traffic, address)
            self.check(
                f"each of {traffic.answered:,} requests was answered while models changed: {traffic.failed} were not",
                not traffic.failed and traffic.answered > 0,
            )

    def _images(self) -> None:
        """Writes the images that a person would have: to choose from, to judge by, and old ones with their labels."""
        for name, split, places, turned, sorted_ in (
            ("pool", self.test, self.parts["pool"], True, False),
            ("test-turned", self.test, self.parts["test"], True, True),
            ("test-upright", self.test, self.parts["test"], False, True),
            ("old", self.train, range(min(MOST["old"], len(self.train))), False, True),
        ):
            for place in places:
                image = split.image(int(place))
                folder = self.home / "images" / name
                if sorted_:
                    folder /= ("train" if name == "old" else "test") + "/" + self.names[int(split.labels[place])]
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{place}.png").write_bytes(as_png(slipped(image) if turned else image))

    def _fit(self, name: str, keys: dict[str, Any]) -> None:
        self._call("main", "--config", "digits", "--workdir", self._at(name), *as_keys(keys))
        print(f"{self.seconds:6.0f} s  trained: {name}", flush=True)

    def _more(self, table: Path, name: str) -> dict[str, Any]:
        """Returns the keys of a training that goes on from the first model, on a table of old and chosen images."""
        return self.data | {
            "data.source": f"csv:{table}",
            "model.pretrained": self._at("old"),
            "steps": self.options.more_steps if name == "new" else self.options.more_steps // 3,
            "optimizer.learning_rate": 0.05,
        }

    @contextmanager
    def _service(self) -> Iterator[tuple[Traffic, str]]:
        """Serves the first model; requests go on until the end."""
        key = secrets.token_hex(16)
        (self.home / "admin.key").write_text(key)
        port = free_port()
        given = ["--model", f"{NAME}={self._at('old')}", "--record", self.home / "records", "--port", port]
        rollout = ["--admin-key-file", self.home / "admin.key", "--candidates", self.home / "runs", *CANARY]
        with (self.home / "serve.log").open("w") as log:
            server = subprocess.Popen(command("serve", *given, *rollout), stdout=log, stderr=log)
            try:
                address = f"http://127.0.0.1:{port}"
                wait_for(lambda: server.poll() is not None or reachable(f"{address}/readyz"), 120)
                if server.poll() is not None:
                    raise UserError(f"the service did not start: {(self.home / 'serve.log').read_text()[-2000:]}")
                self.key = key
                traffic = Traffic(port, f"/v1/models/{NAME}/predict", self.options.rate)
                traffic.ask(self._questions(turned=False))
                with traffic:
                    yield traffic, address
                server.terminate()
                self.check("the service ends by SIGTERM with status 0", server.wait(60) == 0)
            finally:
                server.kill()

    def _drift(self, traffic: Traffic) -> None:
        start = time.time()
        wait_for(lambda: traffic.answered >= 500, 120)
        self.check("without drift the monitor finds none", self._monitor(start) == 0)
        accuracy = traffic.accuracy()
        traffic.ask(self._questions(turned=True))
        since = time.time()
        before = traffic.answered
        wait_for(lambda: traffic.answered >= before + 500, 120)
        now = traffic.accuracy(500)
        found = self._monitor(since) == 1
        self.check(f"the camera slipped: accuracy {accuracy:.2%}, then {now:.2%}; the monitor finds it", found)
        self.check("its hook ran", (self.home / "drift.txt").is_file())

    def _monitor(self, since: float) -> int:
        hook = f'echo "$JAXNETS_DRIFT" > "{self.home / "drift.txt"}"'
        reference = ["--reference", self._at("old"), "--log", self.home / "records", "--name", NAME]
        bounds = ["--alpha", 0.001]  # one in a thousand runs of this would alarm without drift
        return self._call("monitor", *reference, "--since", since, *bounds, "--on-drift", hook, statuses=(0, 1))

    def _label(self) -> Path:
        """Chooses images, and says of each what it is, as a person would in the demo; returns the table."""
        count = min(self.options.count, len(self.parts["pool"]) // 2)
        images = self.home / "images"
        table = self.home / "next.csv"
        self._call(
            "select", "--model", self._at("old"), "--images", images / "pool", "--count", count,
            "--labelled", f"folder:{images / 'old'}", "--out", table,
        )  # fmt: skip
        checking = Checking(table)
        right = 0
        while (row := checking.next()) is not None:
            truth = self.names[int(self.test.labels[int(checking.image(row).stem)])]
            right += checking.labels(row) == (truth,)
            checking.say(row, [truth])
        self.check(f"{count:,} images were chosen and labelled; the guess was right for {right}", right < count)
        return table

    def _wrong(self, table: Path) -> Path:
        """Returns a table whose labels are each the next class's."""
        with table.open(newline="") as opened:
            titles, *rows = csv.reader(opened)
        for row in rows:
            row[1] = self.names[(self.names.index(row[1]) + 1) % len(self.names)]
        with (self.home / "wrong.csv").open("w", newline="") as opened:
            csv.writer(opened).writerows([titles, *rows])
        return self.home / "wrong.csv"

    def _compare(self) -> None:
        found = {(run, way): self._accuracy(run, way) for run in ("old", "new", "bad") for way in ("turned", "upright")}
        said = ", ".join(f"{run} {way} {accuracy:.2%}" for (run, way), accuracy in found.items())
        better = found["new", "turned"] > found["old", "turned"] + 0.05
        self.check(f"the new model is better on the slipped camera's held-out images: {said}", better)
        self.check(
            "and no more than two points worse on upright ones",
            found["new", "upright"] > found["old", "upright"] - 0.02,
        )

    def _accuracy(self, run: str, way: str) -> float:
        out = self.home / "reports" / f"{run}-{way}"
        source = f"folder:{self.home / 'images' / f'test-{way}'}"
        self._call("evaluate", "--workdir", self._at(run), "--source", source, "--no-page", "--out", out)
        return float(json.loads((out / "metrics.json").read_text())["accuracy"])

    def _send_back(self, traffic: Traffic, address: str) -> None:
        self._begin(address, "bad")
        state = self._until(address, ("rolled back", "promoted"))
        self.check(
            f"the model that learnt wrong labels was sent back: {state['reason']}", state["phase"] == "rolled back"
        )

    def _take_over(self, traffic: Traffic, address: str) -> None:
        self._begin(address, "new")
        state = self._until(address, ("rolled back", "promoted"))
        self.check(f"the new model took over by itself ({state['phase']})", state["phase"] == "promoted")
        before = traffic.answered
        wait_for(lambda: traffic.answered >= before + 500, 120)
        self.check(f"and answers: accuracy {traffic.accuracy(400):.2%}", traffic.answers()[-1].model == "new")
        labels = self.home / "labels.csv"
        with labels.open("w", newline="") as opened:
            csv.writer(opened).writerows([("id", "label"), *((one.number, one.truth) for one in traffic.answers())])
        time.sleep(2)  # until the last records are written
        given = ["--log", self.home / "records", "--a", NAME, "--b", "new", "--labels", labels]
        found = self._call("monitor", "ab", *given, "--out", self.home / "ab.json", statuses=(0, 1))
        self.check("of what both answered, the labels that come later say that the difference is sure", found == 1)

    def _begin(self, address: str, name: str) -> None:
        self._post(f"{address}/v1/models/{NAME}/canary", {"model": self._at(name), "name": name})
        print(f"{self.seconds:6.0f} s  {name} is on trial", flush=True)

    def _until(self, address: str, phases: tuple[str, ...]) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            state = next(one for one in get(f"{address}/v1/models")["models"] if one["name"] == NAME)["rollout"]
            return state if state["phase"] in phases else None

        return wait_for(ended, PATIENCE)

    def _post(self, url: str, content: dict[str, str]) -> None:
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        request = urllib.request.Request(url, json.dumps(content).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            raise UserError(f"{url}: {error.code}, {error.read().decode()}") from error

    def _questions(self, *, turned: bool) -> list[Question]:
        return [
            Question(as_png(slipped(image) if turned else image), self.names[int(self.test.labels[place])])
            for place in self.parts["asked"].tolist()
            for image in (self.test.image(place),)
        ]

    def _at(self, run: str) -> str:
        return str(self.home / "runs" / run)

    def _call(self, module: str, *arguments: object, statuses: Iterable[int] = (0,)) -> int:
        done = subprocess.run(command(module, *arguments), capture_output=True, text=True, check=False)
        if done.returncode not in statuses:
            raise UserError(f"jaxnets.{module} ended with {done.returncode}: {(done.stdout + done.stderr)[-3000:]}")
        return done.returncode


def slipped(image: np.ndarray) -> np.ndarray:
    """Returns what the camera sees once it has slipped."""
    dimmed = Image.fromarray((DIMMED * image).astype(np.uint8).squeeze())
    return np.asarray(dimmed.rotate(TURNED, Image.Resampling.BILINEAR)).reshape(image.shape)


def as_png(image: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(content, "PNG")
    return content.getvalue()


def as_keys(keys: dict[str, Any]) -> list[str]:
    return [f"--config.{key}={value}" for key, value in keys.items()]


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"jaxnets.{module}", *map(str, arguments)]


def get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=20) as answer:
        return json.loads(answer.read())


def reachable(url: str) -> bool:
    try:
        return bool(get(url))
    except OSError:
        return False


if __name__ == "__main__":
    main()
