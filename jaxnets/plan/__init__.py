"""What a config would cost on hardware that is not here."""
