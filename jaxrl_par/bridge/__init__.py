"""Threads that cannot fail in silence, and the three systems that are made of them.

This folder is their common floor: supervised threads, actors and the pool that replaces
them, engines, reports. `actor_learner`, `parameter_server` and `generations` stand on
it, and do not know each other.
"""
