"""Decodes a source once: `python -m jaxnets.prepare` writes what `config.data.source=prepared:DIR` reads."""
