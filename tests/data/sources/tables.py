"""The same few images as a CSV file, Parquet, shards and a data set of Hugging Face's."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("ant", "bee")


def encoded(number: int) -> bytes:
    """Returns a PNG of 8×8 pixels that no other number has."""
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels // 2 + np.uint8(100 * (number % 2))).save(file, "PNG")
    return file.getvalue()


def examples(train: int = 48, test: int = 16) -> list[tuple[str, str, str, bytes]]:
    """Returns name, class, split and bytes of each."""
    splits = ["train"] * train + ["test"] * test
    return [(f"{n:03}.png", CLASSES[n % 2], split, encoded(n)) for n, split in enumerate(splits)]


def write_csv(folder: Path) -> str:
    (folder / "images").mkdir(parents=True)
    lines = ["file,class,split"]
    for name, label, split, content in examples():
        (folder / "images" / name).write_bytes(content)
        lines.append(f"images/{name},{label},{split}")
    (folder / "labels.csv").write_text("\n".join(lines))
    return f"csv:{folder / 'labels.csv'}"


def write_parquet(folder: Path) -> str:
    import pyarrow
    import pyarrow.parquet

    folder.mkdir(parents=True)
    features = {"image": {"_type": "Image"}, "label": {"names": list(CLASSES), "_type": "ClassLabel"}}
    for wanted in ("train", "test"):
        rows = [row for row in examples() if row[2] == wanted]
        table = pyarrow.table(
            {
                "image": [{"bytes": content, "path": name} for name, _, _, content in rows],
                "label": [CLASSES.index(label) for _, label, _, _ in rows],
            }
        ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pyarrow.parquet.write_table(table, folder / f"{wanted}-00000-of-00001.parquet", row_group_size=20)
    return f"parquet:{folder}"


def write_tar(folder: Path) -> str:
    folder.mkdir(parents=True)
    (folder / "classes.txt").write_text("\n".join(CLASSES))
    for wanted in ("train", "test"):
        rows = [row for row in examples() if row[2] == wanted]
        half = len(rows) // 2
        for shard, part in enumerate((rows[:half], rows[half:])):
            members = {}
            for name, label, _, content in part:
                members[name] = content
                members[name.replace(".png", ".cls")] = str(CLASSES.index(label)).encode()
            pack(folder / f"{wanted}-{shard:04}.tar", members)
    return f"tar:{folder}/*.tar"


def write_hf(folder: Path) -> str:
    return "hf:" + write_parquet(folder).partition(":")[2]


def pack(to: Path, members: Mapping[str, bytes]) -> Path:
    """Writes an archive of these files."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(to, "w") as archive:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return to
