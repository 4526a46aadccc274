"""The page: what flows, and what an operator may want to do about it, in a browser and live."""
