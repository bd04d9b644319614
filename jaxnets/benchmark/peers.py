"""How quickly other libraries deliver training batches. Run by another Python, so that it imports nothing of jaxnets.

`PYTHON peers.py NAME` reads a job, one line of JSON, from standard input, and answers with the versions in one line, or
with why it cannot; then for each further line, which is a number of seconds, with `{"images": …, "seconds": …}`, and at
the end of the lines with `{"peak_mib": …}`.

Each delivers host arrays of random resized crops to the job's size (area 0.08 … 1, aspect 3/4 … 4/3, bilinear) with a
random flip, shuffled, in full batches, with the job's number of threads or processes:

- tf.data: `sample_distorted_bounding_box`, `decode_and_crop_jpeg` (the box alone is decoded), `resize` (bilinear, not
  antialiased), float32; its own pool of threads.
- torchvision: `RandomResizedCrop` and `RandomHorizontalFlip` on Pillow's images, uint8, in a DataLoader's processes.
- timm: its training transform without automatic augmentation, uint8, collated as its prefetcher does, likewise.
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

_WARM_UP = 3  # batches that are not counted: the first wait for processes and for code to be compiled

Open = Callable[[], Iterable[int]]  # what gives the sizes of batches, one after the other, for ever


def serve(prepare: Callable[[dict[str, Any]], tuple[dict[str, str], Open]]) -> None:
    """Answers the lines of standard input; `prepare` takes the job to the versions and to what opens a stream."""
    answers = sys.stdout
    sys.stdout = sys.stderr  # libraries print

    def answer(found: dict[str, Any]) -> None:
        answers.write(json.dumps(found) + "\n")
        answers.flush()

    try:
        versions, open_stream = prepare(json.loads(sys.stdin.readline()))
    except Exception as error:
        answer({"missing": f"{type(error).__name__}: {error}".splitlines()[0]})
        return
    answer({"versions": versions})
    for line in sys.stdin:
        answer(_measured(iter(open_stream()), float(line)))
    answer({"peak_mib": peak_mib()})


def _measured(batches: Iterator[int], seconds: float) -> dict[str, float]:
    for _ in range(_WARM_UP):
        next(batches)
    start, images, elapsed = time.perf_counter(), 0, 0.0
    while elapsed < seconds:
        images += next(batches)
        elapsed = time.perf_counter() - start
    return {"images": images, "seconds": elapsed}


def peak_mib() -> float | None:
    """Returns the most memory that this process has had resident; those that it started are not counted."""
    try:
        with open("/proc/self/status") as status:  # what getrusage says is at least what the parent had
            return round(next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 2**10, 1)
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10), 1)


def _tf_data(job: dict[str, Any]) -> tuple[dict[str, str], Open]:
    import tensorflow as tf

    size, batch, paths = job["size"], job["batch_size"], job["paths"]

    def load(path: Any, label: Any) -> tuple[Any, Any]:
        stored = tf.io.read_file(path)
        start, extent, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(stored),
            bounding_boxes=tf.zeros([1, 0, 4]),
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        box = tf.stack([start[0], start[1], extent[0], extent[1]])
        image = tf.image.decode_and_crop_jpeg(stored, box, channels=3)
        image = tf.image.random_flip_left_right(tf.image.resize(image, [size, size]))
        return tf.ensure_shape(image, [size, size, 3]), label

    options = tf.data.Options()
    options.threading.private_threadpool_size = job["threads"]
    files = tf.data.Dataset.from_tensor_slices((paths, job["labels"])).shuffle(len(paths)).repeat()
    data = files.map(load, num_parallel_calls=job["threads"], deterministic=False)
    data = data.batch(batch, drop_remainder=True).prefetch(2).with_options(options)
    return {"tensorflow": tf.__version__}, lambda: (len(image) for image, _ in data.as_numpy_iterator())


def _torch_files(job: dict[str, Any], transform: Callable[[Any], Any], collate: Any) -> Open:
    import torch
    from PIL import Image

    if len(job["paths"]) < job["batch_size"]:  # an epoch would have no batch, and be followed by the next for ever
        raise ValueError(f"{len(job['paths'])} files make no batch of {job['batch_size']}")

    class Files(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(job["paths"])

        def __getitem__(self, index: int) -> tuple[Any, int]:
            with Image.open(job["paths"][index]) as image:
                return transform(image.convert("RGB")), job["labels"][index]

    loader = torch.utils.data.DataLoader(
        Files(),
        job["batch_size"],
        shuffle=True,
        drop_last=True,
        num_workers=job["threads"],
        collate_fn=collate,
        persistent_workers=job["threads"] > 0,
    )

    def stream() -> Iterator[int]:
        while True:
            for image, _ in loader:
                yield len(image)

    return stream


def _torchvision(job: dict[str, Any]) -> tuple[dict[str, str], Open]:
    import torch
    import torchvision
    from torchvision.transforms import v2

    crop = v2.Compose([v2.RandomResizedCrop(job["size"]), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    return versions, _torch_files(job, crop, None)


def _timm(job: dict[str, Any]) -> tuple[dict[str, str], Open]:
    import timm
    import torch
    from timm.data import create_transform
    from timm.data.loader import fast_collate

    transform: Any = create_transform(
        job["size"], is_training=True, color_jitter=None, interpolation="bilinear", use_prefetcher=True
    )
    return {"torch": torch.__version__, "timm": timm.__version__}, _torch_files(job, transform, fast_collate)


PEERS = {"tf.data": _tf_data, "torchvision": _torchvision, "timm": _timm}

if __name__ == "__main__":
    serve(PEERS[sys.argv[1]])
