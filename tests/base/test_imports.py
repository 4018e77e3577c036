import importlib
import re

import pytest

from srpo_verl.base.imports import how_to_find


@pytest.mark.parametrize(("module", "said"), [("mine_x", True), ("mine_x.part", True), ("needs_another", False)])
def test_advice_only_for_the_module_itself(module, said, tmp_path, monkeypatch):
    (tmp_path / "needs_another.py").write_text("import mine_y")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError) as error:
        importlib.import_module(module)
    assert bool(re.search(r"absolute path .* PYTHONPATH.*pip install", how_to_find(module, error.value))) == said
    assert how_to_find(module, ValueError()) == ""
