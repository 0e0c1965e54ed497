"""DECIDE: which of the candidates, in which order, and why. Pure: numpy and the standard library.

Time, chance and everything known about the world are arguments; nothing here reads a clock, a file or a socket.
Start reading at `rank.rank`.
"""
