"""The run directory: where its parts lie, how it is stored, and how its checkpoints are read."""
