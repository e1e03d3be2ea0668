"""The architecture, as a test: which part may know which."""

import ast
import subprocess
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "jaxrl_par"
MAY_IMPORT = {
    "axis": set(),
    "specs": {"trees"},
    "masks": {"specs", "errors"},
    "stream": {"lazy"},
    "trees": set(),
    "draws": set(),
    "numpy_actor": set(),
    "types": {"axis", "specs", "masks", "stream"},
    "elapsed": {"types"},
    "errors": set(),
    "exit_codes": set(),
    "lazy": set(),
    "measured": set(),
    "pipes": set(),
    "kept": {"pipes", "__version__"},
    "random": {"types", "draws", "errors"},
    "returns": {"errors"},
    "losses": {"types"},
    "statistics": {"axis"},
    "compatible": {"specs", "trees", "errors"},
    "targets": {"types"},
    "perturbations": {"types", "errors"},
    "guidance": {"types", "axis"},
    "trust_region": {"types", "axis", "errors"},
    "optimizers": {"errors", "elapsed"},
    "distributions": {"types"},
    "joint": {"types", "distributions"},
    "exploration": {"types"},
    "networks": {"types", "errors", "compatible", "distributions", "masks", "joint"},
    "agents": {"types", "axis", "errors", "networks"},
    "envs": {
        "types",
        "specs",
        "masks",
        "stream",
        "trees",
        "axis",
        "errors",
        "statistics",
        "lazy",
    },
    "algorithms": {"types", "axis", "errors", "returns", "losses", "exploration"}
    | {"networks", "agents", "statistics", "targets", "elapsed", "perturbations"}
    | {"compatible", "distributions", "guidance", "trust_region", "masks"},
    "rollout": {"types", "errors", "compatible", "envs", "masks"},
    "replay": {"types", "axis", "errors", "losses"},
    "loops": {"types", "axis", "errors", "random", "envs", "rollout", "replay"}
    | {"elapsed", "compatible", "statistics", "perturbations", "guidance"}
    | {"trust_region"},
    "bridge": {"types", "axis", "errors", "envs", "rollout", "loops", "perturbations"}
    | {"stream", "trees", "lazy", "draws", "numpy_actor"},
    "hosts": {"errors", "exit_codes"},
    "fleet": {"types", "axis", "errors", "lazy", "envs", "rollout", "loops", "bridge"}
    | {"stream", "compatible"},
    "topologies": {"types", "axis", "errors", "random", "envs", "rollout", "loops"}
    | {"bridge", "elapsed", "fleet", "perturbations"},
    "training": {
        "types",
        "errors",
        "exit_codes",
        "lazy",
        "random",
        "envs",
        "rollout",
        "loops",
        "bridge",
        "hosts",
    }
    | {"topologies"},
    "export": {
        "types",
        "trees",
        "lazy",
        "networks",
        "numpy_actor",
        "training",
    },
    "cli": {"types", "axis", "errors", "random", "envs", "networks", "optimizers"}
    | {"algorithms", "replay", "loops", "topologies", "training", "kept", "hosts"}
    | {"export"},
    "presets": {
        "types",
        "axis",
        "errors",
        "random",
        "exit_codes",
        "kept",
        "hosts",
        "envs",
        "networks",
        "optimizers",
    }
    | {"algorithms", "replay", "loops", "topologies", "training", "export", "cli"}
    | {"compatible", "guidance", "trust_region"},
    "testing": {"types", "axis", "errors", "random", "networks", "envs", "rollout"}
    | {"masks"}
    | {"loops", "topologies"},
}
# Whoever records a metric says what it is.
MAY_IMPORT |= {part: names | {"measured"} for part, names in MAY_IMPORT.items()}
MAY_IMPORT["__init__"] = {*MAY_IMPORT, "lazy"}
MAY_IMPORT["__main__"] = {"errors", "exit_codes", "envs", "kept", "pipes", "presets"}
MAY_IMPORT["__main__"] |= {"__version__"}
# Their modules do not know each other: each can be read, and removed, by itself. A
# folder among them counts as one module.
INDEPENDENT = {"algorithms", "topologies"}
# Folders that stand on the rest of their part, which does not know them, and not on
# each other.
SYSTEMS = {"bridge": {"actor_learner", "generations", "parameter_server"}}
# The one part that knows each library.
LIBRARIES = {"flax": "networks", "gymnax": "envs", "orbax": "training", "tyro": "cli"}
LIBRARIES |= {"yaml": "cli", "ray": "fleet", "jinja2": "training", "onnx": "export"}
LIBRARIES |= dict.fromkeys(["gymnasium", "ale_py", "envpool"], "envs")
LIBRARIES |= dict.fromkeys(["jumanji", "octax", "pgx", "xminigrid"], "envs")
LIBRARIES |= dict.fromkeys(["brax", "craftax", "navix", "mujoco_playground"], "envs")


def imports(path: Path) -> set[str]:
    """Every module that the file imports, by absolute name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_imports_follow_the_architecture():
    for path in PACKAGE.rglob("*.py"):
        part, *module = path.relative_to(PACKAGE).with_suffix("").parts
        for name in imports(path):
            library, *inner = name.split(".")
            allowed = LIBRARIES.get(library, part) == part
            if library == "jaxrl_par":
                beside = inner[0] == part
                if part in INDEPENDENT:
                    beside = beside and inner[1] == module[0]
                if beside and inner[1] in SYSTEMS.get(part, ()):
                    beside = inner[1] == module[0]
                allowed = beside or inner[0] in MAY_IMPORT[part]
            assert allowed, f"{path} imports {name}"


def test_the_top_level_is_as_agreed():
    git = ["git", "-C", str(PACKAGE.parent), "ls-files"]
    listed = subprocess.run(git, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout")
    top = {line.split("/")[0] for line in listed.stdout.splitlines()}
    folders = {"jaxrl_par", "experiments", "tests", "notebooks"}
    files = {"pyproject.toml", "README.md", "LICENSE"}
    assert {x for x in top if not x.startswith(".")} == folders | files
