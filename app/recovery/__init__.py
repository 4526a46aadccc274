"""What an operator does by hand while the workers are stopped: grow, bring back, check, save (docs/runbook.md)."""
