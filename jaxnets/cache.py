"""The user's cache directory, and the compiled programs that are kept there."""

import os
from pathlib import Path


def use_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache, unless JAX's own settings say otherwise."""
    import jax

    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        jax.config.update("jax_compilation_cache_dir", str(cache_directory() / "compiled"))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def cache_directory() -> Path:
    """Returns the user's cache directory for jaxnets."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "jaxnets"
