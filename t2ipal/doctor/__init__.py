"""Why nothing happens: checks of a machine, a store and a cluster. Starts and repairs nothing."""
