"""Alerts on their way out of Kafka, to people."""
