"""Families of tasks, a file each: what meta-learning learns to learn.

As `import gymnax` does, importing a module of this folder starts a JAX backend.
"""
