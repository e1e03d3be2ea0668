"""What holds where environments meet the stream."""

from typing import Any

from tables.markdown import table


def conformance(data: Any) -> str:
    """Questions as columns; why an answer is no stands below."""
    questions = [*data["questions"], "check_environment"]
    rows, reasons = [], []
    for row in data["rows"]:
        answers = row.get("answers", {}) | {
            "check_environment": row.get("check_environment")
        }
        name = f"{row['suite']} {row['version']}: {row['task']}"
        told = [_answer(answers.get(x)) for x in questions]
        rows.append([name, row["side"], *told])
        reasons += [
            f"* {name}, {row['side']}, {x}: {y}"
            for x, y in answers.items()
            if isinstance(y, str)
        ]
    threads = [f"* {suite}: {', '.join(x)}" for suite, x in data["threads"].items()]
    whole = [table(["task", "side", *questions], rows), "What a no is:"]
    whole += ["\n".join(reasons), "Where users met these faults:", "\n".join(threads)]
    return "\n\n".join([f"jax {data['jax']}. A dash: there is nothing to ask.", *whole])


def _answer(x: Any) -> str:
    return "no" if isinstance(x, str) else {True: "yes", None: "-"}[x]
