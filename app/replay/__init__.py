"""Past requests published again: which of them, and as what."""
