"""Attacks on a running service: each a distinct way in, tried against its real options.

`catalog` lists them, `arena` runs the services that they are tried on, `oracle` says what must
hold after each, `controls` takes the defences out one by one.
"""
