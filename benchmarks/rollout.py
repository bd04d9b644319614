"""Measures what a shadow costs the model that it shadows.

python benchmarks/rollout.py shadow [--model efficientnet_lite0] [--candidate M] [--load 0.5] [--seconds 10 --repeats 5]

Two services, one of which has a shadow, take turns under the same load while the other one is stopped: requests leave
at random times, at a part of what the service without a shadow answers when connections ask again at once. Of each turn
the mean and the median latency count, and what counts of all is the ratio of each pair of turns. The load generator is
on the same cores.
"""

import argparse
import asyncio
import os
import random
import re
import statistics
import sys
import time
import urllib.request
from pathlib import Path

from machine import machine
from monitor import load
from servers import Process, free_port
from serving import drawn, percentile

PREDICT = "/v1/models/it/predict"
OUTCOMES = ("agreed", "disagreed", "failed", "dropped")


class Service(Process):
    def __init__(self, *arguments: str) -> None:
        port = free_port()
        super().__init__([sys.executable, "-m", "jaxnets.serve", *arguments, "--port", str(port)], port, PREDICT)

    def copies(self) -> dict[str, int]:
        """Returns what has come of the copies so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics") as answer:
            found = re.findall(
                r'^jaxnets_copies_total\{.*outcome="(\w+)"\} (\S+)', answer.read().decode(), re.MULTILINE
            )
        return {name: int(float(dict(found).get(name, 0))) for name in OUTCOMES}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    found = commands.add_parser("shadow")
    found.add_argument("--model", default="efficientnet_lite0", help="a run directory or the name of a model")
    found.add_argument("--candidate", help="likewise (default: the same)")
    found.add_argument("--image", type=Path, help="a JPEG (default: one of 320×240 that is drawn)")
    found.add_argument("--load", type=float, default=0.5, help="part of what is answered at full load")
    found.add_argument("--shadow-time", default="0.1", help="as the service's option")
    found.add_argument("--seconds", type=float, default=10)
    found.add_argument("--repeats", type=int, default=5)
    found.add_argument("--connections", type=int, default=6, help="at full load")
    found.set_defaults(command=shadow)
    options = parser.parse_args()
    print(f"{machine()}, load before: {os.getloadavg()[0]:.1f}", flush=True)
    options.command(options)


def shadow(options) -> None:
    content = options.image.read_bytes() if options.image else drawn()
    # Both have both models in memory: they differ in the shadow alone.
    models = ("--model", f"it={options.model}", "--model", f"candidate={options.candidate or options.model}")
    shadowing = ("--shadow", "it=candidate", "--shadow-time", options.shadow_time)
    with Service(*models) as plain, Service(*models, *shadowing) as shadowed:
        sides = {"without a shadow": plain, "with one": shadowed}
        shadowed.pause()
        load(plain.port, content, options.connections, 2)
        full = load(plain.port, content, options.connections, options.seconds / 2)
        rate = options.load * full
        print(f"at full load {full:.1f} requests/s; asked {rate:.1f} requests/s", flush=True)
        plain.pause()
        taken: dict[str, list[list[float]]] = {name: [] for name in sides}
        for turn in range(options.repeats):
            for name in list(sides) if turn % 2 else list(sides)[::-1]:
                sides[name].resume()
                asyncio.run(latencies(sides[name].port, content, rate, 1, turn))
                taken[name].append(asyncio.run(latencies(sides[name].port, content, rate, options.seconds, turn)))
                if name == "with one":
                    copies = shadowed.copies()
                sides[name].pause()
        for service in sides.values():
            service.resume()
        for name, turns in taken.items():
            each = [value for turn in turns for value in turn]
            p50, p99 = (1e3 * percentile(each, share) for share in (0.5, 0.99))
            mean = 1e3 * statistics.fmean(each)
            print(f"{name:17s} {len(each):6d} answers: mean {mean:.2f} ms, p50 {p50:.2f} ms, p99 {p99:.2f} ms")
        for what, of in (("mean", statistics.fmean), ("p50", statistics.median)):
            ratios = [of(with_) / of(without) for without, with_ in zip(*taken.values(), strict=True)]
            said = ", ".join(f"{ratio:.3f}" for ratio in sorted(ratios))
            print(f"with / without, {what}: median {statistics.median(ratios):.3f} ({said})")
        print(f"copies: {', '.join(f'{count} {name}' for name, count in copies.items())}")


async def latencies(port: int, content: bytes, rate: float, seconds: float, seed: int) -> list[float]:
    """Returns the seconds from when each request was due to its answer; they are due at random times."""
    head = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {len(content)}\r\n\r\n"
    message, free, tasks, found = head.encode() + content, [], [], []

    async def one(due: float) -> None:
        reader, writer = free.pop() if free else await asyncio.open_connection("127.0.0.1", port)
        writer.write(message)
        answer = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(re.search(rb"content-length: (\d+)", answer)[1]))
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"at this load a request was refused: take a smaller --load ({answer[:40]!r})")
        found.append(time.perf_counter() - due)
        free.append((reader, writer))

    draw, due = random.Random(seed), time.perf_counter()
    end = due + seconds
    while (due := due + draw.expovariate(rate)) < end:
        if (pause := due - time.perf_counter()) > 0:
            await asyncio.sleep(pause)
        tasks.append(asyncio.create_task(one(due)))
    await asyncio.gather(*tasks)
    for _, writer in free:
        writer.close()
    return found


if __name__ == "__main__":
    main()
