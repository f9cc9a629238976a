"""The controllers of the embedded cluster: they bring it in line with its objects, as on a real one.

Each is level-triggered: it reads the objects, brings them one step nearer to their specification, and returns the
seconds until its next turn. One thread runs them all.
"""
