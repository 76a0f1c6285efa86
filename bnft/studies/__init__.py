"""Studies: rows, published numbers to set beside them, and claims."""
