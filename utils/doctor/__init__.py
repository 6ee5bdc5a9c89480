"""The data doctor, ``python -m tools.doctor``: what is wrong with a data set, found before training finds out.

``diagnosis.py`` goes through a data set and asks the others, a file each for what can be wrong: ``paths``, ``pairs``,
``pictures``, ``labels``, ``balance``, ``sizes``, ``copies``. ``kinds`` lists every kind of fault by name, ``findings``
collects them, ``report`` words them, ``correct`` writes a corrected copy, ``quick`` is what train.py says by itself.
"""
