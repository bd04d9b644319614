"""What in a picture speaks for a class."""
