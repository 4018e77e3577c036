"""What may import what: the package stands alone, and no two of its modules import each other."""

import ast
from pathlib import Path

import reward_fns

FOLDER = Path(reward_fns.__file__).parent


def imports(path):
    """The modules that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def module_name(path):
    parts = path.relative_to(FOLDER.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): imports(path) for path in FOLDER.rglob("*.py")}
PACKAGES = {module_name(path) for path in FOLDER.rglob("__init__.py")}  # their own files only gather names


# It hands on to verl's own function, and imports verl only then.
OF_VERL = "reward_fns.adapters.verl_default"


def test_the_package_stands_alone():
    for name, found in FILES.items():
        if name == OF_VERL:
            found = found - {module for module in found if module.startswith("verl.utils.reward_score")}
        assert not {module for module in found if module.split(".")[0] in ("srpo_verl", "workflows", "verl")}, name


def test_no_circle_of_imports():
    graph = {name: found & FILES.keys() - PACKAGES - {name} for name, found in FILES.items()}
    done, open_ = set(), []

    def visit(name):
        assert name not in open_, " -> ".join([*open_[open_.index(name) :], name])
        if name in done:
            return
        open_.append(name)
        for target in sorted(graph[name]):
            visit(target)
        open_.pop()
        done.add(name)

    for name in sorted(graph.keys() - PACKAGES):
        visit(name)
