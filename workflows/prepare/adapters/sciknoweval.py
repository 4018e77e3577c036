"""SciKnowEval (arXiv 2406.09098), level L3, multiple choice with four or two options, one benchmark per domain.

The split is SDPO's: a tenth of the domain's rows, in the order of `datasets.Dataset.train_test_split(seed=42)`. Prompt
and system text are SDPO's too; the system text speaks of four options in questions with two as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from workflows.prepare.adapters.benchmark import Benchmark, HubSplit, Published, Question, Row

TYPES = ("mcq-4-choices", "mcq-2-choices")
SYSTEM = (
    "\nGiven a question and four options, please select the right answer. Respond in the following format:\n"
    "<reasoning>\n...\n</reasoning>\n<answer>\n...\n</answer>\n\n"
    "For the answer, only output the letter corresponding to the correct option (A, B, C, or D), and nothing else. "
    'Do not restate the answer text. For example, if the answer is "A", just output:\n<answer>\nA\n</answer>\n'
)


def adapt(row: Row, split: str) -> Question:
    """A row of the hub; `idx` is added by :func:`hold_out`."""
    labels, texts = row["choices"]["label"], row["choices"]["text"]
    options = "\n".join(f"{label}: {text}" for label, text in zip(labels, texts, strict=True))
    prompt = f"{row['question']}\n\n{options}\nPlease reason step by step."
    return Question(prompt, row["answerKey"], SYSTEM, row["idx"], {"options": "".join(labels)})


def hold_out(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Numbers the rows and splits them."""
    from datasets import Dataset

    split = Dataset.from_dict({"idx": range(len(rows))}).train_test_split(test_size=0.1, seed=42)
    return {name: [{**rows[idx], "idx": idx} for idx in split[name]["idx"]] for name in ("train", "test")}


def domain(name: str, hub_name: str, train: Published, test: Published) -> Benchmark:
    """The benchmark of one domain."""

    def select(row: Row) -> bool:
        return row["domain"] == hub_name and row["details"]["level"] == "L3" and row["type"] in TYPES

    return Benchmark(
        name=name,
        data_source=f"sciknoweval_{name}",
        ability="science",
        adapt=adapt,
        columns=("domain", "details", "type", "question", "choices", "answerKey"),
        hub={"all": HubSplit("hicai-zju/SciKnowEval", "test")},
        pool=hold_out,
        select=select,
        published={"train": train, "test": test},
    )


# Counts and hashes are those of the files in SDPO's repository: `srpo prepare NAME --from FOLDER` writes them down.
BENCHMARKS = [
    domain(
        "chemistry",
        "Chemistry",
        Published(1890, "731dd048725cc1dfcfbb2513273b1cc1f0c8dfb815dfb7bed0f20fb0a84a5776"),
        Published(210, "9920ce152d0d5a7b6ce14103b29e1eaeb5df1551ed45ffdf2018e77c8673c4db"),
    ),
    domain("physics", "Physics", Published(720), Published(80)),
    domain(
        "biology",
        "Biology",
        Published(450, "904eb46c57a23ac2029b21bd619cdd95e06d9809728b6738106980f90be1a976"),
        Published(50, "4cfacabc116ff1231bc11668212581d14464834692f3c6a44ec73027035d6add"),
    ),
    domain(
        "materials",
        "Material",
        Published(841, "a5ef25edc30274925d20d249f6eb6bd6aa454c5fc13660ba776656ac82bc1b6b"),
        Published(94, "4f1072e201ef43582575b3d7bbf33ba14c8bf750f3eeba6993f86add225346a6"),
    ),
]
