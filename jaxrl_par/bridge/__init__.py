"""Threads that cannot fail in silence, and the two systems that are made of them.

This folder is their common floor: supervised threads, actors and the pool that replaces
them, engines, reports. `actor_learner` and `parameter_server` stand on it, and do not
know each other.
"""
