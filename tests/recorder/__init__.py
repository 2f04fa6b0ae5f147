"""Record the installed CLI's output, for the tests of everything that reads it.

Each scene is played on a CLI that was started as every agent is, against the stand-in for the
model's API. What differs from run to run or from machine to machine is taken out, so that the same
CLI gives the same recordings, to the byte.
"""
