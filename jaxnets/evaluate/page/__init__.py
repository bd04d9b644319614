"""The report of an evaluation as one page, section by section."""
