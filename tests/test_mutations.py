"""The list of planted bugs fits the package; `mutations/run.py` plants them."""

from mutations.mutants import MUTATIONS, ROOT, problems


def test_every_mutation_is_of_one_place_of_its_own():
    assert problems(MUTATIONS) == []


def test_every_part_of_the_package_has_some():
    assert len(MUTATIONS) >= 60
    folder = ROOT / "jaxrl_par"
    parts = {x.parent.name for x in folder.glob("*/__init__.py")}
    parts |= {x.stem for x in folder.glob("[!_]*.py")}
    assert {x.part for x in MUTATIONS} == parts


def test_a_list_that_does_not_fit_is_told():
    good = MUTATIONS[0]
    bad = {
        "0 times": good._replace(old="no such text"),
        "not once": good._replace(old="values"),
        "this name": good,
        "same line": good._replace(name="another"),
        "no Python": good._replace(new="for _ in"),
        "no tests/": good._replace(tests=("test_returns.py::test_nothing",)),
    }
    for message, mutation in bad.items():
        before = [good] if message in ("this name", "same line") else []
        assert message in problems([*before, mutation])[0]
