"""Who answers: the simulator, and servers of our own for what it does not have."""
