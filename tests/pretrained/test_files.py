"""Files of weights of every format: what is read, and that whatever is wrong with one ends in one message."""

import io
import json
import struct
import tarfile
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from jaxnets.errors import UserError
from jaxnets.pretrained import files
from jaxnets.pretrained.files import read_weights
from tests.pretrained.make_torch_files import DATA

ARRAYS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(4).astype(np.float16),
    "c": np.arange(4).astype(ml_dtypes.bfloat16),
    "d": np.array(7),
    "e": np.array([True, False]),
}
TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "bool": "BOOL"}


def _safetensors(arrays: dict[str, np.ndarray], types=TYPES) -> bytes:
    header, data = {}, b""
    for key, array in arrays.items():
        span = [len(data), len(data) + array.nbytes]
        header[key] = {"dtype": types[array.dtype.name], "shape": array.shape, "data_offsets": span}
        data += array.tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _npz(arrays: dict[str, np.ndarray], save=np.savez) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def _compressed(arrays: dict[str, np.ndarray]) -> bytes:
    return _npz(arrays, np.savez_compressed)


def _file(folder: Path, content: bytes, name="weights.bin") -> Path:
    (folder / name).write_bytes(content)
    return folder / name


def _refused(path: Path) -> str:
    with pytest.raises(UserError) as refused:
        read_weights(path)
    assert str(path) in str(refused.value)
    assert str(refused.value).isprintable()
    return str(refused.value)


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return file.getvalue()


def _zip(names: list[str]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return file.getvalue()


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pth", "weights.npz", "weights"])
@pytest.mark.parametrize("pack", [_safetensors, _npz, _compressed])
def test_arrays_are_those_that_were_saved_whatever_the_suffix(tmp_path, pack, name):
    read = read_weights(_file(tmp_path, pack(ARRAYS), name))
    assert set(read) == set(ARRAYS)
    for key, array in ARRAYS.items():
        np.testing.assert_array_equal(read[key], array, strict=True)


def test_big_endian_arrays_become_native(tmp_path):
    read = read_weights(_file(tmp_path, _npz({"w": np.arange(3, dtype=">f4")})))
    np.testing.assert_array_equal(read["w"], np.arange(3, dtype=np.float32), strict=True)
    assert read["w"].dtype.isnative


def test_counters_of_batches_are_returned():
    assert read_weights(DATA / "checkpoint.pth")["module.norm.num_batches_tracked"] == 1


def _spread(folder: Path, weight_map: dict[str, str], pack=_safetensors) -> Path:
    """Writes an index, and each file that it names with the arrays that it says."""
    for file in set(weight_map.values()):
        held = {key: ARRAYS[key] for key, other in weight_map.items() if other == file and key in ARRAYS}
        (folder / file).write_bytes(pack(held))
    return _file(folder, json.dumps({"weight_map": weight_map}).encode(), "model.safetensors.index.json")


@pytest.mark.parametrize("pack", [_safetensors, _npz])
def test_weights_that_are_spread_over_several_files_are_read_together(tmp_path, pack):
    index = _spread(tmp_path, {key: f"{i % 2}.safetensors" for i, key in enumerate(ARRAYS)}, pack)
    read = read_weights(index)
    assert set(read) == set(ARRAYS)
    assert all(np.array_equal(read[key], array) for key, array in ARRAYS.items())


@pytest.mark.parametrize(
    "file", ["../1.safetensors", "/etc/passwd", "a/b", "..", "", "a\\b", 3, None, "model.safetensors.index.json"]
)
def test_an_index_that_names_files_elsewhere_is_refused(tmp_path, file):
    content = json.dumps({"weight_map": {"a": file}}).encode()
    assert "of the same folder" in _refused(_file(tmp_path, content, "model.safetensors.index.json"))


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"weight_map": {}}', b'{"weight_map": ["a"]}', b"[" * 100_000]
)
def test_an_index_that_is_none_is_refused(tmp_path, content):
    _refused(_file(tmp_path, content, "model.safetensors.index.json"))


def test_a_key_that_is_not_in_the_file_of_the_index_is_named(tmp_path):
    assert "'nowhere'" in _refused(_spread(tmp_path, {"a": "1.safetensors", "nowhere": "1.safetensors"}))


def test_a_key_of_a_file_that_the_index_does_not_know_is_named(tmp_path):
    index = _spread(tmp_path, {"a": "1.safetensors"})
    _file(tmp_path, _safetensors({key: ARRAYS[key] for key in "ab"}), "1.safetensors")
    with pytest.raises(UserError, match="'b', of which"):
        read_weights(index)


def test_a_file_of_several_that_is_missing_is_named(tmp_path):
    index = _spread(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"})
    (tmp_path / "2.safetensors").unlink()
    with pytest.raises(UserError, match=r"there is no file .*2\.safetensors"):
        read_weights(index)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"\n <!DOCTYPE html><html></html>", "web page"),
        (b"<html><body>404</body></html>", "web page"),
        (b'{"error": "not found"}\n', "is text"),
        (b"Not Found\x0a", "is text"),
        (bytes(range(256)), "no format that is known"),
        (_tar(), "tar archive"),
        (b"\x1f\x8b\x08\0\0\0\0\0", "gunzip"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x93NUMPY\x01\x00", "np.savez"),
        (b"\x80\x04\x95\x05\0\0\0\0\0\0\0}.", "torch.save did not write"),
        (_zip([]), "empty zip"),
        (_zip(["model.json", "weights.h5"]), "'model.json', 'weights.h5'"),
        (b"PK\x03\x04", "cut off or damaged"),
    ],
)
def test_what_holds_no_weights_is_called_by_its_name(tmp_path, content, words):
    assert words in _refused(_file(tmp_path, content, "weights.pth"))


def test_a_missing_file_is_refused(tmp_path):
    assert "there is no file" in _refused(tmp_path / "weights.pth")


def test_a_folder_is_refused(tmp_path):
    assert "is a folder" in _refused(tmp_path)


@pytest.mark.parametrize("pack", [_safetensors, _compressed])
def test_a_file_without_arrays_is_refused(tmp_path, pack):
    _refused(_file(tmp_path, pack({})))


def test_an_object_in_an_npz_is_refused(tmp_path):
    assert "'w' of Python objects" in _refused(_file(tmp_path, _npz({"w": np.array([print], dtype=object)})))


@pytest.mark.parametrize("array", [np.array(["text"]), np.zeros(2, "f4,i4"), np.zeros(2, "V3"), np.zeros(2, "M8[s]")])
def test_what_are_no_numbers_is_refused(tmp_path, array):
    assert "expected numbers" in _refused(_file(tmp_path, _npz({"w": array})))


def test_an_npz_that_unpacks_to_much_more_than_its_size_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_NPZ_SMALL", 1000)
    message = _refused(_file(tmp_path, _compressed({"w": np.zeros(1 << 20)})))
    assert "claims to unpack" in message


def test_an_npy_that_claims_more_than_its_entry_has_is_refused(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }\n"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("w.npy", b"\x93NUMPY\x01\0" + struct.pack("<H", len(header)) + header + bytes(64))
    assert "damaged" in _refused(_file(tmp_path, file.getvalue()))


def test_a_type_that_numpy_lacks_is_named(tmp_path):
    content = _safetensors({"w": np.zeros(2, np.int8)}, {"int8": "F8_E4M3"})
    assert "F8_E4M3" in _refused(_file(tmp_path, content))


@pytest.mark.parametrize("length", [0, 1, 1 << 40, (1 << 64) - 1])
def test_a_safetensors_header_of_another_length_is_refused(tmp_path, length):
    content = struct.pack("<Q", length) + _safetensors(ARRAYS)[8:]
    assert "damaged" in _refused(_file(tmp_path, content))


def test_keys_with_control_characters_are_refused(tmp_path):
    assert r"\x1b[2J" in _refused(_file(tmp_path, _safetensors({"\x1b[2J": ARRAYS["a"]})))


CONTENTS = {
    **{
        name: (DATA / name).read_bytes()
        for name in ("zip_protocol4.pth", "stream.pth", "training.pth", "training_stream.pth")
    },
    "safetensors": _safetensors(ARRAYS),
    "npz": _npz(ARRAYS),
    "npz_compressed": _compressed(ARRAYS),
}


@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_that_is_cut_off_is_refused_wherever_it_is_cut(tmp_path, name):
    content = CONTENTS[name]
    for length in np.linspace(0, len(content) - 1, 100).astype(int):
        _refused(_file(tmp_path, content[:length]))


@pytest.mark.parametrize("name", CONTENTS)
def test_a_damaged_file_is_refused_or_read_but_never_another_error(tmp_path, name):
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        content = np.frombuffer(CONTENTS[name], np.uint8).copy()
        places = generator.integers(0, len(content), generator.integers(1, 8))
        content[places] = generator.integers(0, 256, len(places))
        try:
            read = read_weights(_file(tmp_path, content.tobytes()))
        except UserError:
            refused += 1
        else:
            assert all(isinstance(array, np.ndarray) for array in read.values())
    assert refused
