"""What tests share, by what it stands for: a stack, a provider, a reader, a clock, a load, and plain values."""
