"""Studies: a question as one file with rows, the numbers published for them, and claims.

`study` has the typed contents, `check` reads them from a configuration, `measures` lists what a claim can be about, and
`jobs` makes the command lines of the runs.
"""
