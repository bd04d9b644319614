"""Environment variables of Gradio: what it would make a traceback of is refused by name, or as good as unset."""

from collections.abc import MutableMapping

from jaxnets.errors import UserError

# Numbers that Gradio reads while it is imported or launched, and their smallest and largest values.
_PORTS = (0, 65535)
_NUMBERS = {
    "GRADIO_SERVER_PORT": _PORTS,
    "GRADIO_NODE_SERVER_PORT": _PORTS,
    "GRADIO_NUM_PORTS": (1, 65535),
    "GRADIO_NODE_NUM_PORTS": (1, 65535),
    "GRADIO_NUM_WORKERS": (1, 1024),
    "GRADIO_DEBUG": (0, 1),
    "GRADIO_ANALYTICS_MAX_EVENTS": (1, 10**9),
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": (1, 10**9),
    "GRADIO_DEFAULT_CONCURRENCY_LIMIT": (1, 10**6),
}
_WORDS = {"GRADIO_DEFAULT_CONCURRENCY_LIMIT": ("none",)}  # that it takes besides


def check(environment: MutableMapping[str, str]) -> None:
    """Removes what is set to nothing, as scripts and container files do for 'unset'.

    Raises:
        UserError: if what must be a number is none.
    """
    for name in [name for name, value in environment.items() if name.startswith("GRADIO_") and not value.strip()]:
        del environment[name]
    for name, (least, most) in _NUMBERS.items():
        value = environment.get(name, str(least)).strip()
        if value.lower() not in _WORDS.get(name, ()) and not _is_number(value, least, most):
            raise UserError(
                f"{name} must be a whole number from {least} to {most}, found {value!r}: mend it or unset it"
            )


def _is_number(text: str, least: int, most: int) -> bool:
    try:
        return least <= int(text) <= most
    except ValueError:
        return False
