"""From a source of images to batches of uint8 examples."""
