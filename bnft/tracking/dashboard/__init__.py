"""A W&B workspace and a report that compare the runs of a sweep; `bnft dashboard`.

`comparison.py` says what is compared, `panels.py` what is drawn, `views.py` how it is laid out, `sending.py` sends it.
"""
