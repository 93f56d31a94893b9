"""How fast it is: reference configurations against this machine's ceiling and plain implementations.

Never part of the tests: what is measured here depends on the machine and on the moment.
"""
