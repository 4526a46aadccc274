"""What was said: topics, lanes, logs, traces and webhooks, written to and read."""
