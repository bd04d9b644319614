"""PyTorch's files: PyTorch's own (in `data/`, see `make_torch_files.py`), and files put together to do harm."""

import copyreg
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from jaxnets.errors import UserError
from jaxnets.pretrained import torch_file, torch_pickle
from jaxnets.pretrained.torch_file import read_torch_file
from tests.pretrained.make_torch_files import DATA, VALUES

FORMATS = ["zip", "stream"]
SAME = ["zip.pth", "zip_protocol4.pth", "stream.pth", "stream_protocol4.pth"]
FLOATS = {"0": ("FloatStorage", np.arange(6, dtype=np.float32))}


def _plain(value: object) -> bytes:
    """The instructions that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def _named(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def _storage(key="0", kind="FloatStorage", numel: object = 6, tail=b"") -> bytes:
    identity = _plain("storage") + _named(f"torch.{kind}") + _plain(key) + _plain("cpu") + _plain(numel) + tail
    return b"(" + identity + b"tQ"


def _tensor(offset: object = 0, shape: object = (6,), strides: object = (1,), storage=None) -> bytes:
    storage = _storage() if storage is None else storage
    arguments = _plain(offset) + _plain(shape) + _plain(strides) + b"\x89" + _named("collections.OrderedDict") + b")R"
    return _named("torch._utils._rebuild_tensor_v2") + b"(" + storage + arguments + b"tR"


def _dict(**items: bytes) -> bytes:
    return b"}(" + b"".join(_plain(key) + value for key, value in items.items()) + b"u"


def _program(instructions: bytes) -> bytes:
    return b"\x80\x02" + instructions + b"."


def _write(path: Path, kind: str, program: bytes, storages=FLOATS, root="archive", extra=None) -> Path:
    """Writes a PyTorch file around the pickle."""
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{root}/data.pkl", program)
            for name, content in (extra or {}).items():
                archive.writestr(f"{root}/{name}", content)
            for key, (_, data) in storages.items():
                archive.writestr(f"{root}/data/{key}", data.tobytes())
        return path
    head = [torch_file.STREAM_MAGIC, 1001, {"little_endian": True}]
    with open(path, "wb") as file:
        for value in (int.from_bytes(head[0], "little"), *head[1:]):
            pickle.dump(value, file, 2)
        file.write(program)
        pickle.dump(list(storages), file, 2)
        for _, data in storages.values():
            file.write(struct.pack("<q", len(data)) + data.tobytes())
    return path


def _refused(path: Path) -> str:
    with pytest.raises(UserError) as refused:
        read_torch_file(path)
    assert str(path) in str(refused.value)
    assert str(refused.value).isprintable()
    return str(refused.value)


def _refused_program(folder: Path, instructions: bytes, kind="zip", **options) -> str:
    return _refused(_write(folder / "weights.pth", kind, _program(instructions), **options))


# ---------------------------------------------------------------------------------------------------- PyTorch's files


@pytest.mark.parametrize("key", VALUES)
@pytest.mark.parametrize("name", SAME)
def test_values_and_dtypes_are_those_that_pytorch_saved(name, key):
    dtype, values = VALUES[key]
    read = read_torch_file(DATA / name)[key]
    assert read.dtype == np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    np.testing.assert_array_equal(read, values.astype(read.dtype), strict=True)


@pytest.mark.parametrize("name", SAME)
def test_keys_are_those_that_pytorch_saved_in_their_order(name):
    assert list(read_torch_file(DATA / name)) == list(VALUES)


@pytest.mark.parametrize("name", SAME)
def test_arrays_are_c_contiguous_and_writeable(name):
    assert all(array.flags.c_contiguous and array.flags.writeable for array in read_torch_file(DATA / name).values())


def test_a_file_without_checksums_is_read():
    np.testing.assert_array_equal(read_torch_file(DATA / "no_checksums.pth")["w"], np.arange(24) - np.float32(3.5))


@pytest.mark.parametrize("name", ["checkpoint.pth", "checkpoint_stream.pth"])
def test_the_state_dict_is_found_in_a_checkpoint(name):
    read = read_torch_file(DATA / name)
    with np.load(DATA / "checkpoint.npz") as expected:
        assert list(read) == [f"module.{key}" for key in expected]
        for key in expected:
            np.testing.assert_array_equal(read[f"module.{key}"], expected[key], strict=True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("module.pth", ["torch.nn.modules.linear.Linear", "state_dict()"]),
        ("sparse.pth", ["torch._utils._rebuild_sparse_tensor", "to_dense"]),
        ("quantized.pth", ["torch._utils._rebuild_qtensor", "dequantize"]),
        ("conjugated.pth", ["conjugated"]),
        ("tensor.pth", ["one tensor without a name"]),
    ],
)
def test_what_is_no_state_dict_of_dense_tensors_is_refused_by_name(name, words):
    message = _refused(DATA / name)
    assert all(word in message for word in words)


# ------------------------------------------------------------------------------------------------------ what is found


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_put_together_here_is_read(tmp_path, kind):
    read = read_torch_file(_write(tmp_path / "w.pth", kind, _program(_dict(w=_tensor(1, (2, 2), (1, 2))))))
    np.testing.assert_array_equal(read["w"], np.float32([[1, 3], [2, 4]]), strict=True)


@pytest.mark.parametrize("raw", ["state_dict", "model"])
@pytest.mark.parametrize("averaged", ["state_dict_ema", "model_ema", "ema"])
def test_averaged_weights_are_preferred_and_the_others_can_be_asked_for(tmp_path, caplog, raw, averaged):
    caplog.set_level("INFO")
    wrapped = {raw: _dict(plain=_tensor()), averaged: _dict(mean=_tensor()), "epoch": _plain(3)}
    path = _write(tmp_path / "w.pth", "zip", _program(_dict(**wrapped)))
    assert list(read_torch_file(path)) == ["mean"]
    assert f"'{averaged}' is taken" in caplog.text
    assert f"takes '{raw}'" in caplog.text
    assert list(read_torch_file(path, "raw")) == ["plain"]


def test_averaged_weights_alone_are_read_and_said_to_be_averaged(tmp_path, caplog):
    path = _write(tmp_path / "w.pth", "zip", _program(_dict(model_ema=_dict(w=_tensor()))))
    assert list(read_torch_file(path, "raw")) == ["w"]
    assert "no others" in caplog.text


@pytest.mark.parametrize(
    "name", ["model_state", "model_state_dict", "state_dict_ema", "model_ema", "module", "net", "weights", "anything"]
)
def test_the_state_dict_may_have_other_names(tmp_path, name):
    program = _program(_dict(**{name: _dict(w=_tensor()), "epoch": _plain(3)}))
    assert list(read_torch_file(_write(tmp_path / "w.pth", "zip", program))) == ["w"]


def test_a_tensor_called_model_is_a_weight(tmp_path):
    assert list(read_torch_file(_write(tmp_path / "w.pth", "zip", _program(_dict(model=_tensor()))))) == ["model"]


def test_storages_of_ignored_entries_need_not_be_there(tmp_path):
    program = _program(_dict(model=_dict(w=_tensor()), optimizer=_dict(w=_tensor(storage=_storage("9")))))
    assert list(read_torch_file(_write(tmp_path / "w.pth", "zip", program))) == ["w"]


def test_weights_in_an_entry_of_an_entry_are_found(tmp_path):
    program = _program(_dict(ema=_dict(module=_dict(w=_tensor()), updates=_plain(5))))
    assert list(read_torch_file(_write(tmp_path / "w.pth", "zip", program))) == ["w"]


def test_two_sets_of_tensors_without_a_usual_name_are_refused_with_their_names(tmp_path):
    message = _refused_program(tmp_path, _dict(generator=_dict(w=_tensor()), critic=_dict(w=_tensor())))
    assert "'generator', 'critic'" in message


@pytest.mark.parametrize("value", [3, 0.5, "resnet18", None, True])
def test_numbers_and_text_beside_tensors_are_passed_over_and_said(tmp_path, caplog, value):
    caplog.set_level("INFO")
    path = _write(tmp_path / "w.pth", "zip", _program(_dict(w=_tensor(), epoch=_plain(value))))
    assert list(read_torch_file(path)) == ["w"]
    assert "'epoch'" in caplog.text


@pytest.mark.parametrize("entry", [_dict(w=_tensor()), b"(K\x01K\x02t", _storage(), b"](" + _tensor() + b"e"])
def test_an_entry_that_may_hold_weights_and_is_no_tensor_is_named(tmp_path, entry):
    assert "'epoch' that is no named tensor" in _refused_program(tmp_path, _dict(w=_tensor(), epoch=entry))


@pytest.mark.parametrize("name", ["training.pth", "training_stream.pth"])
def test_what_training_programs_save_beside_the_weights_is_passed_over(name):
    averaged, raw = read_torch_file(DATA / name), read_torch_file(DATA / name, "raw")
    assert list(averaged) == list(raw) == ["weight", "bias"]
    np.testing.assert_array_equal(averaged["weight"], np.float32([[0.5, 1]]))
    np.testing.assert_array_equal(raw["weight"], np.float32([[1, 2]]))


@pytest.mark.parametrize(("value", "found"), [([1, 2], "one list"), (7, "one int"), (None, "one NoneType")])
def test_a_file_without_a_dict_is_refused(tmp_path, value, found):
    assert found in _refused_program(tmp_path, _plain(value))


def test_parameters_of_2017_are_read(tmp_path):
    tensor = _named("torch._utils._rebuild_tensor") + b"(" + _storage() + b"K\x00K\x06\x85K\x01\x85tR"
    state = b"(\x88\x89" + _named("collections.OrderedDict") + b")Rtb"
    program = _program(_dict(w=_named("torch.nn.parameter.Parameter") + tensor + b"\x85R" + state))
    np.testing.assert_array_equal(read_torch_file(_write(tmp_path / "w.pth", "stream", program))["w"], np.arange(6))


def test_the_pairs_of_a_dict_that_python_2_saved_are_read(tmp_path):
    pairs = b"](](" + _plain("w") + _tensor() + b"ee"
    program = _program(_named("collections.OrderedDict") + pairs + b"\x85R")
    assert list(read_torch_file(_write(tmp_path / "w.pth", "stream", program))) == ["w"]


def test_peak_memory_is_that_of_the_arrays(tmp_path):
    data = {str(i): ("FloatStorage", np.zeros(1 << 20, np.float32)) for i in range(8)}
    tensors = {f"w{key}": _tensor(0, (1 << 10, 1 << 10), (1, 1 << 10), _storage(key, numel=1 << 20)) for key in data}
    path = _write(tmp_path / "w.pth", "zip", _program(_dict(**tensors)), data)
    tracemalloc.start()
    read = read_torch_file(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.25 * sum(array.nbytes for array in read.values())


# -------------------------------------------------------------------------------------------------- what would do harm


class _Attack:
    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", FORMATS)
def test_a_call_of_the_system_is_refused_by_name_and_not_executed(tmp_path, kind, protocol):
    target = tmp_path / "executed"
    program = pickle.dumps({"w": _Attack(target)}, protocol)
    message = _refused(_write(tmp_path / "w.pth", kind, program))
    if protocol >= 2:  # the older ones have instructions that PyTorch does not write
        assert f"{os.name}.system" in message
    assert "othing was executed" in message
    assert not target.exists()


def test_the_attack_is_one(tmp_path):
    pickle.loads(pickle.dumps(_Attack(tmp_path / "executed")))
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "name",
    [
        "builtins.eval",
        "builtins.getattr",
        "__builtin__.apply",
        "os.system",
        "collections.OrderedDict.__init__.__globals__",
        "collections.OrderedDict.fromkeys",
        "torch._utils.os",
        "torch.hub.load",
        "torch.FloatStorage.__class__",
        "jaxnets.pretrained.torch_pickle._tensor",
        "operator.attrgetter",
        "__main__.Net",
    ],
)
@pytest.mark.parametrize("opcode", ["GLOBAL", "STACK_GLOBAL", "INST"])
@pytest.mark.parametrize("split", ["last", "first"])
def test_every_other_name_is_refused_by_name(tmp_path, name, opcode, split):
    module, _, attribute = name.rpartition(".") if split == "last" else name.partition(".")
    pair = f"{module}\n{attribute}\n".encode()
    reference = {
        "GLOBAL": b"c" + pair,
        "STACK_GLOBAL": _plain(module) + _plain(attribute) + b"\x93",
        "INST": b"(i" + pair,
    }[opcode]
    message = _refused_program(tmp_path, _dict(w=reference))
    assert name in message
    assert "othing was executed" in message


def test_a_name_with_control_characters_is_shown_without_them(tmp_path):
    assert r"\x1b[2J" in _refused_program(tmp_path, b"cos\n\x1b[2J" + b"x" * 10_000 + b"\n")


def test_registered_extensions_are_not_reached(tmp_path):
    copyreg.add_extension("os", "getcwd", 200)
    try:
        assert "EXT1" in _refused_program(tmp_path, _dict(w=b"\x82\xc8)R"))
    finally:
        copyreg.remove_extension("os", "getcwd", 200)


@pytest.mark.parametrize(
    "instructions",
    [
        _tensor() + b")R",  # a tensor is called
        _plain("os.system") + _plain("true") + b"\x85R",
        _named("torch.FloatStorage") + b")R",
        _named("torch.FloatStorage") + b")\x81",
        _named("collections.OrderedDict") + _plain({"__reduce__": 1}) + b"b",  # BUILD of a class
        _named("collections.OrderedDict") + _plain("xy") + b"\x85R",
        _named("torch._utils._rebuild_parameter") + b")R",
        _named("torch._utils._rebuild_parameter") + b"NR",
        b"(" + _named("collections.OrderedDict") + b"o",  # OBJ
        _named("collections.OrderedDict") + b")}\x92",  # NEWOBJ_EX
        b"]K\x01K\x02s",  # an item of a list
        b"}K\x01a",  # append to a dict
        b"\x8f",  # a set
        b"P0\n",  # a persistent id that is text
        _plain("0") + b"Q",
        b")Q",
        b"(" + _plain("file") + _plain("/etc/passwd") + b"tQ",
        b"h\x63",  # memo 99
        b"r\xff\xff\xff\xff",  # memo 2**32 - 1 of nothing
        b"0" * 3,
        b"\x8b\xff\xff\xff\x7f1",  # LONG4 of 2 GiB
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f1",  # BINBYTES8 of 8 EiB
        b"",
    ],
)
@pytest.mark.parametrize("kind", FORMATS)
def test_other_ways_out_of_the_pickle_are_refused(tmp_path, instructions, kind):
    _refused_program(tmp_path, instructions, kind)


def test_the_source_of_a_model_is_not_read(tmp_path):
    identity = b"(" + _plain("module") + _named("torch.Size") + _plain("net.py") + _plain("class Net: ...") + b"tQ"
    assert "state_dict()" in _refused_program(tmp_path, identity, "stream")


def test_a_view_of_a_storage_is_refused(tmp_path):
    assert "2017" in _refused_program(tmp_path, _dict(w=_tensor(storage=_storage(tail=_plain(("1", 0, 3))))))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (7,), (1,)),
        (1, (6,), (1,)),
        (6, (1,), (1,)),
        (6, (), ()),
        (0, (2, 2), (5, 1)),
        (0, (1 << 40,), (1,)),
        (0, (2,), (1 << 40,)),
        (1 << 80, (1,), (1,)),
        (-1, (2,), (1,)),
        (5, (2,), (-1,)),
        (0, (-1,), (1,)),
        (0, (2,), (1, 1)),
        (0, (2.0,), (1,)),
        (0, (True,), (1,)),
        (0, 6, 1),
        ("0", (6,), (1,)),
        (0, (0, 1 << 47, 1 << 47), (1, 1, 1)),
        (0, (1,) * 100, (1,) * 100),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(tmp_path, kind, offset, shape, strides):
    _refused_program(tmp_path, _dict(w=_tensor(offset, shape, strides)), kind)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("numel", [5, 7, 1 << 45, 1 << 60, -6, 6.0])
def test_a_storage_of_another_size_than_stated_is_refused(tmp_path, kind, numel):
    _refused_program(tmp_path, _dict(w=_tensor(shape=(1,), storage=_storage(numel=numel))), kind)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_missing_storage_is_refused(tmp_path, kind):
    assert "found nothing" in _refused_program(tmp_path, _dict(w=_tensor()), kind, storages={})


def test_a_storage_to_which_nothing_refers_is_refused_in_a_stream(tmp_path):
    assert "nothing refers" in _refused_program(tmp_path, _dict(w=_tensor(storage=_storage("1"))), "stream")


def test_a_tensor_that_repeats_its_storage_without_end_is_refused(tmp_path):
    assert "repeat" in _refused_program(tmp_path, _dict(w=_tensor(0, (1 << 40,), (0,))))


def test_many_strided_copies_of_one_storage_are_refused(tmp_path):
    data = {"0": ("FloatStorage", np.zeros(1 << 18, np.float32))}
    tensor = _tensor(0, (1 << 9, 1 << 9), (1, 1 << 9), _storage(numel=1 << 18))
    tensors = {f"w{i}": tensor for i in range(4)}
    assert "repeat" in _refused_program(tmp_path, _dict(**tensors), storages=data)


def test_storages_that_overlap_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    data = {str(i): ("FloatStorage", np.zeros(1000, np.float32)) for i in range(2)}
    tensors = {f"w{key}": _tensor(shape=(1000,), storage=_storage(key, numel=1000)) for key in data}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", _program(_dict(**tensors)))
        archive.writestr("a/data/0", bytes(4000))
        twin = zipfile.ZipInfo("a/data/1")
        twin.header_offset = archive.getinfo("a/data/0").header_offset
        twin.file_size = twin.compress_size = 4000
        twin.CRC = archive.getinfo("a/data/0").CRC
        archive.filelist.append(twin)
    assert "overlap" in _refused(path)


@pytest.mark.parametrize("entry", ["data.pkl", "data/0"])
def test_a_compressed_entry_is_refused(tmp_path, entry):
    contents = {"data.pkl": _program(_dict(w=_tensor())), "data/0": bytes(24)}
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            method = zipfile.ZIP_DEFLATED if name == entry else zipfile.ZIP_STORED
            archive.writestr(f"a/{name}", content, method)
    assert f"'a/{entry}'" in _refused(path)


def test_an_entry_that_claims_more_than_the_file_has_is_refused(tmp_path):
    path = _write(tmp_path / "w.pth", "zip", _program(_dict(w=_tensor(storage=_storage(numel=1 << 20)))))
    with zipfile.ZipFile(path, "a") as archive:
        entry = archive.getinfo("archive/data/0")
        entry.file_size = entry.compress_size = 4 << 20
        archive._didModify = True  # type: ignore[attr-defined]
    assert "past its end" in _refused(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_long_pickle_is_refused(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(torch_file, "_LONGEST_PICKLE", 1 << 20)
    assert "1 MiB" in _refused_program(tmp_path, _dict(w=_plain("x" * (2 << 20))), kind)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_pickle_of_many_instructions_is_refused(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(torch_pickle, "_MOST_INSTRUCTIONS", 1000)
    assert "1000 instructions" in _refused_program(tmp_path, b"N" * 2000, kind)


@pytest.mark.parametrize("as_key", [False, True])
def test_deep_nesting_is_refused(tmp_path, as_key):
    deep = b")" + b"\x85" * 100_000
    _refused_program(tmp_path, b"}" + (deep + b"N" if as_key else _plain("w") + deep) + b"s")


def _nested(times: int) -> bytes:
    """A tuple of a tuple twice, of a tuple twice, …, whose hash takes 2 ** `times` steps."""
    return b"N\x85" + b"".join(b"q\x00h\x00\x86" for _ in range(times))


@pytest.mark.parametrize("key", [_plain((1, 2)), _plain(1.5), _plain(1 << 61), b"C\x03key", _nested(200)])
def test_keys_that_may_be_slow_to_hash_are_not_hashed(tmp_path, key):
    beside = _dict(model=_dict(w=_tensor()), extra=b"}" + key + b"Ns")
    assert list(read_torch_file(_write(tmp_path / "w.pth", "zip", _program(beside)))) == ["w"]
    assert "no named tensor" in _refused_program(tmp_path, b"}" + key + _tensor() + b"s")


_SYSTEM = _named("os.system")
_CALL = _SYSTEM + _plain("touch executed") + b"\x85R"


@pytest.mark.parametrize(
    "harmful",
    [
        _CALL,
        _CALL + b")R",  # the result is called
        _SYSTEM + b"(" + _plain("touch executed") + b"t\x81",  # NEWOBJ
        _SYSTEM + b"(" + _plain("touch executed") + b"t}\x92",  # NEWOBJ_EX
        b"(" + _SYSTEM + _plain("touch executed") + b"o",  # OBJ
        b"(" + _plain("touch executed") + b"ios\nsystem\n",  # INST
        _CALL + b"}" + _plain("__setstate__") + _SYSTEM + b"sb",  # BUILD
        _CALL + b"(N}" + _plain("__class__") + _SYSTEM + b"stb",  # BUILD with slots
        _CALL + b"(" + _plain("key") + _CALL + b"u",  # SETITEMS
        _CALL + b"(" + _CALL + b"e",  # APPENDS
        _CALL + b"(" + _CALL + b"\x90",  # ADDITEMS
        _named("builtins.getattr") + b"(" + _named("os.path") + _plain("os") + b"tR",
        _named("functools.partial") + b"(" + _SYSTEM + _plain("touch executed") + b"tR)R",
        _named("numpy.core.multiarray.scalar") + b"(" + _CALL + _plain("x") + b"tR",
        _named("torch._tensor._rebuild_from_type_v2") + b"(" + _SYSTEM + _SYSTEM + _plain(("touch executed",)) + b"NtR",
    ],
)
def test_harm_beside_the_weights_is_passed_over_and_not_executed(tmp_path, monkeypatch, harmful):
    monkeypatch.chdir(tmp_path)
    path = _write(tmp_path / "w.pth", "zip", _program(_dict(model=_dict(w=_tensor()), extra=harmful)))
    assert list(read_torch_file(path)) == ["w"]
    assert not (tmp_path / "executed").exists()
    message = _refused_program(tmp_path, _dict(w=harmful))
    assert "othing was executed" in message
    assert not (tmp_path / "executed").exists()


def test_attributes_that_a_file_sets_on_a_tensor_change_nothing(tmp_path):
    state = b"(N}" + _plain("shape") + _plain((1 << 40,)) + b"stb"
    read = read_torch_file(_write(tmp_path / "w.pth", "zip", _program(_dict(w=_tensor() + state))))
    np.testing.assert_array_equal(read["w"], np.arange(6))


def test_a_program_of_torchscript_is_refused(tmp_path):
    message = _refused_program(tmp_path, _dict(w=_tensor()), extra={"constants.pkl": b"\x80\x02)."})
    assert "TorchScript" in message


def test_an_archive_of_two_files_is_refused(tmp_path):
    path = _write(tmp_path / "w.pth", "zip", _program(_dict(w=_tensor())))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other/data.pkl", _program(_dict()))
    assert "2 entries" in _refused(path)


def test_little_endian_is_stated_or_assumed(tmp_path):
    path = _write(tmp_path / "w.pth", "zip", _program(_dict(w=_tensor())), extra={"byteorder": b"little"})
    assert list(read_torch_file(path)) == ["w"]


def test_big_endian_is_refused(tmp_path):
    assert "big-endian" in _refused_program(tmp_path, _dict(w=_tensor()), extra={"byteorder": b"big"})


def test_a_flipped_bit_in_a_storage_is_found_by_its_checksum(tmp_path):
    content = bytearray((DATA / "zip.pth").read_bytes())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entry = archive.getinfo("zip/data/0")
    start = content.index(VALUES["float32"][1].astype("<f4").tobytes(), entry.header_offset)
    content[start + 5] ^= 16
    (tmp_path / "w.pth").write_bytes(content)
    assert "checksum" in _refused(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("magic", "version", "keys"), [(1, 1001, ["0"]), (None, 1002, ["0"]), (None, 1001, "0"), (None, 1001, [0])]
)
def test_a_stream_with_another_head_or_list_of_storages_is_refused(tmp_path, magic, version, keys):
    values = [magic or int.from_bytes(torch_file.STREAM_MAGIC, "little"), version, {}]
    content = b"".join(pickle.dumps(value, 2) for value in values) + _program(_dict(w=_tensor()))
    content += pickle.dumps(keys, 2) + struct.pack("<q", 6) + bytes(24)
    (tmp_path / "w.pth").write_bytes(content)
    assert "damaged" in _refused(tmp_path / "w.pth")
