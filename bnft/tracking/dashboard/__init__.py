"""A W&B workspace and a report that compare the runs of a sweep; `bnft dashboard`.

`comparison.py` selects what is compared, `panels.py` draws it, `views.py` arranges it, and `sending.py` sends it.
"""
