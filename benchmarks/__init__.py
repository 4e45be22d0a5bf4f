"""One run that sets purenets beside its peers on the same mathematics: ``python -m benchmarks --list``.

A *row* is a kind of work, such as a training step of an LSTM; a *case* is a row at one setting, one line of the
table. A *contestant* does the work of a case in one *library*, in one *form* of how its users would write it.
Contestants of a case start from the same weights and data. Their losses are compared before anything is timed,
and one that differs is an error and not a time.
"""
