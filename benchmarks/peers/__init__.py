"""Peers: other people's tools doing a benchmark's work. Each is a script of its own environment; none imports thrifty.

``python -m benchmarks.peers.<name> TASK`` takes a `task.Task` as JSON and says by `talk.Talk` what it does, line by
line. What a user of the tool would leave at its default stays so; what bears on the result is the same for all.
"""
