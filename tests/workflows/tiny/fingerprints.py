"""What a start is made of, as one hash per part: what comes before the weights and is the same on every machine."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import replace
from typing import Any

from workflows.tiny.start import Start
from workflows.tiny.texts import Example


def fingerprints(start: Start) -> dict[str, str]:
    """Facts, questions of all splits, beliefs, the tokenizer's corpus, and the texts of a warm-up of twelve steps."""
    start = replace(start, warm_up=replace(start.warm_up, steps=12, clean_steps=6))
    task, pupil = start.task(), start.pupil()
    parts: dict[str, Any] = {
        "facts": list(task.facts.items()),
        "questions": {
            split: [task.verl_row(q, i, split) for i, q in enumerate(questions)]
            for split, questions in start.questions().items()
        },
        "beliefs": [(fact, pupil.weights[fact][0], results) for fact, results in pupil.results.items()],
        "corpus": "".join(start.corpus()),
        "texts": [[_text(example) for example in part] for parts in start.batches() for part in parts],
    }
    return {name: hashlib.sha256(json.dumps(part).encode()).hexdigest() for name, part in parts.items()}


def _text(example: Example) -> tuple[str, list[tuple[str, bool]]]:
    """Prompt and response, cut only where the loss begins or ends."""
    prompt, pieces = example
    runs = itertools.groupby(pieces, key=lambda piece: piece.trained)
    return prompt, [("".join(piece.text for piece in run), trained) for trained, run in runs]
