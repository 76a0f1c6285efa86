"""Studies: the published numbers and settings that rows are compared with."""
