"""Many requests at once, something that happens to them, and a count of everything afterwards."""
