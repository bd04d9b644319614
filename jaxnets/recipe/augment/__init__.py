"""Random changes to training images, on the device, while they are still uint8."""
