"""What runs: the stack, its workers, and the other programs that a test starts beside it."""
