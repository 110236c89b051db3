"""The commands of the command line: each file holds one or a few, thin functions over the Python API.

A command is a parser (`parser()`) and what it does (`run(options)`, which returns the exit code). Heavy modules are
imported inside ``run``, so that help is quick.
"""
