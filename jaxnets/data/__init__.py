"""From a source of pictures to batches of uint8 examples."""
