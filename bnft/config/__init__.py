"""From a command line to one checked configuration, and from that to the parts of a run."""
