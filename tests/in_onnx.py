"""A program in ONNX, called as exported actors are, in whatever runtime is there."""

import jax

from jaxrl_par.numpy_actor import action_of


def runtime(data):
    """(inputs by name) -> outputs by name, in whatever runtime is there."""
    try:
        import onnxruntime

        session = onnxruntime.InferenceSession(data)
        names = [x.name for x in session.get_outputs()]
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        session = ReferenceEvaluator(data)
        names = session.output_names

    def run(given):
        return dict(zip(names, session.run(None, given), strict=True))

    return run


class Program:
    """A program, called as an actor is."""

    def __init__(self, data, config):
        self._run, self.names = runtime(data), config["onnx"]
        self._action = config["action"]
        self._inputs = [x["name"] for x in self.names["inputs"]]

    def step(self, obs, first, carry):
        """(action, parameters by name, carry)."""
        given = [*jax.tree.leaves(obs), first, *carry]
        found = self._run(dict(zip(self._inputs, given, strict=True)))
        for told in self.names["outputs"]:
            x = found[told["name"]]
            assert [*x.shape] == [len(first), *told["shape"][1:]]
            assert x.dtype == told["dtype"]
        after = [n for n in found if n.startswith("next_")]
        carry = tuple(found.pop(name) for name in after)
        actions = [n for n in found if n.startswith("action")]
        action = action_of(self._action, [found.pop(n) for n in actions])
        return action, found, carry
