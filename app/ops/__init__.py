"""What those who run a worker ask it: is it alive, is it ready, and how much of everything."""
