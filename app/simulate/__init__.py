"""History run through another budget, limit or model: what would have changed, without calling anyone."""
