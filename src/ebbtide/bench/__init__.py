"""Benchmarks: reference configurations against this machine's ceiling and against plain implementations.

Never part of the tests: the results depend on the machine and on the moment.
"""
