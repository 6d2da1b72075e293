"""The systems that are compared, one file each, by one contract; and the paper's equations."""
