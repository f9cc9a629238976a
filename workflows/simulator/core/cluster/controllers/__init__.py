"""The controllers of the embedded cluster: what makes its objects true, as on a real one.

Each is level-triggered: it looks at the objects, brings them one step nearer to what they ask for, and says when it
wants to look again. One thread runs them all.
"""
