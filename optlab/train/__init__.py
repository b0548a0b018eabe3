"""Training by one command: ``python -m optlab.train CONFIG [key=value ...]``.

:mod:`~optlab.train.configuration` has all keys and :mod:`~optlab.train.choices` the words,
:mod:`~optlab.train.reading` says where they are read from, :mod:`~optlab.train.parts` and
:mod:`~optlab.train.building` make of them what trains, and :mod:`~optlab.train.estimate` finds what
that takes.  By :mod:`~optlab.train.place` and :mod:`~optlab.train.joining` processes find one
another, by :mod:`~optlab.train.watch` they miss one.  :mod:`~optlab.train.folder` is what is left
of a run, and :mod:`~optlab.train.command` the command.
"""
