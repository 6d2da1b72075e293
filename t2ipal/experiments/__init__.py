"""The paper's tables and our own as a library, on the embedded world."""
