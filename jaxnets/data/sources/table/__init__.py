"""Tables of examples, a row each: which columns are what, which files are meant, and what contradicts itself."""
