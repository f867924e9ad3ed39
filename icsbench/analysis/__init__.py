"""Reading run records and condensing them into numbers with intervals. Never imports torch."""
