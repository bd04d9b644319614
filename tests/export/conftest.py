"""The command, in this process."""

import sys

import pytest


@pytest.fixture
def export(monkeypatch, capsys):
    """Runs the command in this process and returns its status and what it printed."""
    from jaxnets.export.__main__ import main

    def export(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["export", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out + printed.err

    return export
