"""Render the results that come with avseg: their tables, in full, and the answers to what was asked beforehand.

python benchmarks/tables.py [docs/tables.md]
"""

import sys
from pathlib import Path

from avseg.files import whole_file
from avseg.reproduce.definition import protocol_names, read_experiment, read_scale
from avseg.reproduce.document import answers_to_markdown, to_markdown
from avseg.reproduce.hypotheses import answer_hypotheses, read_hypotheses
from avseg.reproduce.summary import summarise
from avseg.reproduce.table import known_records

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "tables.md"
SCALE = "small"
HEAD = """# The tables that were run

Rendered by `python benchmarks/tables.py` from `avseg/experiments/results/*.jsonl`. What they show and what they don't
is said in [findings.md](findings.md); how to run them, in [experiments.md](experiments.md).

All but Table 2 were measured before 2026-11-26: scores are at the model's image size, not at the truth's as `avseg
evaluate` takes them now, and MS3's distant frames came with the sound centred on them, half a second later than
labelled ones.
"""


def tables() -> str:
    """The document: every table of which there are results, then the protocols' answers."""
    records, encoder = known_records(), read_scale(SCALE).encoders[0]
    parts = [HEAD]
    for table in sorted({record.experiment for record in records}):
        summary = summarise(read_experiment(table), records, encoder, SCALE)
        parts.append(to_markdown(summary, details=True, level=2))
    for name in protocol_names():
        outcomes = answer_hypotheses(records, encoder, SCALE, protocol=read_hypotheses(name))
        parts.append(answers_to_markdown(outcomes, level=2))
    return "\n".join(parts)


def main() -> None:
    with whole_file(sys.argv[1] if len(sys.argv) > 1 else DOCUMENT) as temporary:
        temporary.write_text(tables(), encoding="utf-8")


if __name__ == "__main__":
    main()
