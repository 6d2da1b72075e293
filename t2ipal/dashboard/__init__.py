"""The page about a run that one keeps open: served while a search goes on, or as one file."""
