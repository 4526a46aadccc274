"""Names, events and prices that tests are made of."""
