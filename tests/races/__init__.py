"""Races of an interrupt against the next turn: what must never mix, counted.

Many sessions of several tenants at once begin a turn, stop it at a moment drawn from a
seed, and send the next one at another. Every word that an agent says carries its tenant,
session, turn and sequence, so that a word in the wrong stream is a measurement.
"""
