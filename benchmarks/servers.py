"""Servers in processes of their own, and wrk, which asks them."""

import json
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

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

# Other bytes each time, which no cache knows: what follows a JPEG's end no decoder reads.
DIFFERENT = """
local n, run = 0, os.time()
function request() n = n + 1; return wrk.format(nil, nil, nil, wrk.body .. run .. "-" .. n) end
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
        """Returns the MiB of all its processes; pages that they share count once."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return sum(_proportional(number) for number in (self.process.pid, *children))


def _proportional(number: int | str) -> float:
    return int(re.search(r"Pss:\s+(\d+)", Path(f"/proc/{number}/smaps_rollup").read_text())[1]) / 1024


class Service(Process):
    def __init__(self, model: str, *arguments: object) -> None:
        port = free_port()
        command = [sys.executable, "-m", "jaxnets.serve", "--model", f"it={model}", "--port", str(port)]
        super().__init__([*command, *map(str, arguments)], port, "/v1/models/it/predict")

    def wait_for(self, workers: int) -> None:
        """Waits until so many processes answer."""
        while f"jaxnets_workers {workers}.0" not in self._get("/metrics").decode():
            time.sleep(0.2)

    @property
    def described(self) -> dict:
        return json.loads(self._get("/v1/models"))["models"][0]

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}") as answer:
            return answer.read()


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
    url: str, image: str, seconds: float, connections: int, pause: float = 0.0, *, different: bool = False
) -> tuple[float, float, float, float, float]:
    """Returns answers, refusals, seconds, and the p50 and p99 of all in ms.

    Connections pause for so many ms, and send `different` bytes each time.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % image + (PAUSES % pause if pause else "") + (DIFFERENT if different else ""))
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "-s", script.name, url]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    good, bad, duration, p50, p99 = (float(number) for number in re.search(r"RESULT (.*)", output)[1].split())
    return good, bad, duration, p50, p99
