"""Dead letters for operators: find them, look at one, send it where it came from, remove what is of no use."""
