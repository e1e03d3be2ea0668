"""Names of environments, without importing what they are of."""

import ast
import sys
import threading
import time
from importlib.util import find_spec
from types import ModuleType

from jaxrl_par.envs import catalogue


def test_actors_may_ask_for_names_at_the_same_time(monkeypatch):
    """Python 3.11 fails, at times, where two threads parse at once."""
    monkeypatch.delitem(sys.modules, "gymnax", raising=False)
    catalogue._read_from_gymnax.cache_clear()
    inside, most, parse = [], [], ast.parse

    def slow(*given):
        inside.append(0)
        most.append(len(inside))
        time.sleep(0.05)
        tree = parse(*given)
        inside.pop()
        return tree

    monkeypatch.setattr(catalogue.ast, "parse", slow)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(catalogue.gymnax_names()))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(found) == 4 and len(set(found)) == 1 and "CartPole-v1" in found[0]


def test_a_gymnax_that_another_thread_still_imports_is_read(monkeypatch):
    begun = ModuleType("gymnax")
    begun.__spec__ = find_spec("gymnax")
    monkeypatch.setitem(sys.modules, "gymnax", begun)
    assert "CartPole-v1" in catalogue.gymnax_names()
