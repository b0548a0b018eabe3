"""Training by one command: ``python -m optlab.train CONFIG [key=value ...]``.

:mod:`~optlab.train.configuration` is what can be chosen, :mod:`~optlab.train.reading` where that is
read from, :mod:`~optlab.train.building` what is made of it, :mod:`~optlab.train.estimate` what it
takes, :mod:`~optlab.train.joining` how processes find and miss one another,
:mod:`~optlab.train.folder` what is left of a run, and :mod:`~optlab.train.command` the command.
"""
