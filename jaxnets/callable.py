"""Packages that are called like the function they hold: `jaxnets.train(config, workdir)`."""

import importlib
import sys
import types
from typing import Any


def make_callable(package: str, home: str) -> None:
    """Lets a package be called: `python -m jaxnets.evaluate` is a command, and `jaxnets.evaluate(workdir)` a function.

    Args:
        package: its name.
        home: MODULE:FUNCTION that a call means, imported when it is called.
    """
    module, function = home.split(":")

    class Callable(types.ModuleType):
        def __call__(self, *arguments: Any, **options: Any) -> Any:
            return getattr(importlib.import_module(module), function)(*arguments, **options)

        @property
        def __signature__(self) -> Any:
            """How it is called, for those who ask: notebooks, and help."""
            from inspect import signature

            return signature(getattr(importlib.import_module(module), function))

    sys.modules[package].__class__ = Callable
