"""What in an image speaks for a class, and how far an explanation can be believed."""
