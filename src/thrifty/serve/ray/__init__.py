"""The same server in replicas, on one machine or on many, under Ray Serve: the same routes and answers.

A replica is the ASGI application of `thrifty.serve`, with worker processes, batches and cores of its own; Ray starts
it, looks after it by our readiness, and spreads requests. ``door.py`` stands before the replicas in Ray's proxies,
``replica.py`` is what runs in each, ``deploy.py`` starts and ends all of it.
"""
