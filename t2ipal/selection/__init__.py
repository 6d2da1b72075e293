"""Which synthetic images teach: measuring, choosing, drawing again."""
