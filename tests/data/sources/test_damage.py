"""Tables and archives whose bytes were damaged end in one message, or open; never in a traceback."""

import random
from contextlib import suppress

import pytest

from jaxnets.config import DataConfig
from jaxnets.data.sources import open_source
from jaxnets.data.sources.base import CorruptImage
from jaxnets.errors import UserError
from tests.data.sources import tables

_CUTS = (1, 3, 50, 1000)
_PIECES = (b",", b";", b'"', b"\n", b"\r", b"\t", b"\0", b"\xff", b"nan", b"..", b"/", b" ", b"\xef\xbb\xbf", b"sep=;")


def _damaged(content: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 2, 5))):
        at = chance.randrange(len(damaged) or 1)
        match chance.randrange(3):
            case 0:
                damaged[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                damaged[at:at] = chance.choice(_PIECES)
            case 2:
                del damaged[at : at + chance.choice(_CUTS)]
    return bytes(damaged)


@pytest.mark.parametrize("kind", ["csv", "tar", "parquet"])
def test_damaged_files_are_refused_in_one_line_or_open(tmp_path, monkeypatch, kind):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = getattr(tables, f"write_{kind}")(tmp_path / "data")
    file = min(file for file in (tmp_path / "data").iterdir() if file.suffix == f".{kind}")
    whole, chance = file.read_bytes(), random.Random(0)
    messages = []
    for _ in range(40):
        file.write_bytes(_damaged(whole, chance))
        try:
            opened = open_source(DataConfig(source=source), 0)
        except UserError as error:
            messages.append(str(error))
        else:
            for part in opened.splits.values():
                for index in range(len(part)):
                    with suppress(CorruptImage):
                        part.image(index)
    assert 0 < len(messages) < 40
    assert not [message for message in messages if "\n" in message]
