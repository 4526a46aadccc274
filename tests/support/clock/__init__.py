"""What time does: waiting for a condition, the end of a month, and time that jumps."""
