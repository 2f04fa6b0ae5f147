"""Turns of many tenants while their processes are killed, stopped, cut off and lied for.

Real child processes on the fake agent. What must not happen is counted, and what is left when all
is over: words of another turn, calls without one end, processes, descriptors, threads, files.
"""
