"""ONNX programs are NumPy's actors, in any batch, with memory as input and output."""

import json

import jax
import numpy as np
import pytest
from exported import (
    CASES,
    B,
    T,
    described_case,
    remembering,
    row,
    stream,
    written,
)  # fmt: skip
from in_onnx import Program
from nearness import assert_near

from jaxrl_par.export import ExportError, onnx_form
from jaxrl_par.numpy_actor import Actor

onnx = pytest.importorskip("onnx")


def program(case):
    """The program of a case and NumPy's actor, without any compiled step."""
    config, arrays = described_case(case)
    data, names = onnx_form.written(config, arrays)
    return Program(data, config | {"onnx": names}), Actor(config, arrays)


def possible(policy):
    """Parameters, and which of them stand for what cannot be chosen."""
    none = {name: x == -np.inf for name, x in policy.items()}
    return none, {name: np.where(none[name], 0, x) for name, x in policy.items()}


@pytest.mark.sample(7)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_program_acts_as_numpy_does(case):
    in_onnx, in_numpy = program(case)
    steps = stream(case[0])
    carry = remembering(in_numpy.initial_carry(B))
    onnx_carry = carry
    for t in range(T):
        step = row(steps, t)
        expected, _ = in_numpy.distribution(step.obs, step.first, carry)
        action, carry = in_numpy.step(step.obs, step.first, carry)
        found, policy, onnx_carry = in_onnx.step(step.obs, step.first, onnx_carry)
        assert policy.keys() == expected.keys()
        assert_near(found, action)
        assert_near(possible(policy), possible(expected))
        assert_near(onnx_carry, carry)


@pytest.mark.parametrize("name", ["lstm", "gtrxl", "conv"])
def test_a_batch_is_as_many_batches_of_one(name):
    """Of the same file, whose memory is no constant in it."""
    in_onnx, in_numpy = program(CASES[name])
    steps = stream(CASES[name][0])
    together = in_numpy.initial_carry(B)
    alone = [in_numpy.initial_carry(1)] * B
    for t in range(T):
        step = row(steps, t)
        *_, policy, together = in_onnx.step(step.obs, step.first, together)
        for i in range(B):
            one = jax.tree.map(lambda x, i=i: x[i : i + 1], step)
            *_, found, alone[i] = in_onnx.step(one.obs, one.first, alone[i])
            assert_near(found["logits"], policy["logits"][i : i + 1], 1e-4)
            mine = tuple(x[i : i + 1] for x in together)
            assert_near(alone[i], mine, 1e-4)
    names = {x["name"] for x in in_onnx.names["inputs"]}
    after = {x["name"] for x in in_onnx.names["outputs"]}
    remembered = {name.removeprefix("next_") for name in after if "next_" in name}
    assert remembered <= names and len(remembered) == len(together)


def test_the_folder_tells_names_and_shapes(tmp_path):
    _, _, folder = written(tmp_path, CASES["lstm"], onnx=True)
    config = json.loads((folder / "config.json").read_text())
    model = onnx.load(folder / "step.onnx")
    for side, values in (
        ("inputs", model.graph.input),
        ("outputs", model.graph.output),
    ):
        told = config["onnx"][side]
        assert [x["name"] for x in told] == [x.name for x in values]
        for x, value in zip(told, values, strict=True):
            dims = value.type.tensor_type.shape.dim
            assert x["shape"] == [d.dim_param or d.dim_value for d in dims]
    assert [x["name"] for x in config["onnx"]["inputs"]] == [
        *(f"obs_{i}" for i in range(4)), "first", "cell", "hidden",
    ]  # fmt: skip
    assert config["files"]["step.onnx"] and not list(folder.glob("*.onnx.*"))
    # Asked for no more, it is gone.
    _, _, folder = written(tmp_path, CASES["lstm"])
    assert not (folder / "step.onnx").exists()


def test_a_missing_extra_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_form, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match=r"pip install 'jaxrl-par\[onnx\]'"):
        written(tmp_path, CASES["mlp"], onnx=True)
    assert not (tmp_path / "actor").exists()
