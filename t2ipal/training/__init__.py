"""Learning from stored features: recipes, the loop, and runs in a store."""
