"""Sebulba: actors in threads, a queue of their unrolls, and a learner on the mesh."""
