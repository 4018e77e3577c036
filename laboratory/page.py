"""The generated parts of a page: what stands between `<!-- NAME -->` and `<!-- end NAME -->`."""

from __future__ import annotations

import re
from collections.abc import Mapping


def renewed(page: str, texts: Mapping[str, str]) -> str:
    """The page with every generated part replaced by the text of its name. Raises ValueError if a marker is missing."""
    for name, text in texts.items():
        if not re.search(rf"<!-- {name} -->\n.*<!-- end {name} -->", page, re.DOTALL):
            raise ValueError(f"the page has no markers <!-- {name} --> ... <!-- end {name} -->.")
        before, _, rest = page.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- end {name} -->")
        page = f"{before}<!-- {name} -->\n{text}\n{end}{after}"
    return page
