"""Ray around the stages: the only package that imports ray."""
