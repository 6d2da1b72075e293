"""All stages as one job: its file, its plan, what it costs, and the budget that ends it."""
