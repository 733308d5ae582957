"""With and without the gated linger."""

from typing import Any

from tables.markdown import Document, table


def lines(document: Document) -> list[str]:
    """A row a case; ratios are with over without."""
    header = ["", "without: answers/s", "mean ms", "rows a batch", "with: answers/s", "mean ms", "rows a batch"]
    return table(
        [*header, "ratio of answers/s", "of means"],
        (
            [
                case_text(case),
                *(case[who][key] for who in ("greedy", "linger") for key in ("per_s", "mean_ms", "mean_batch_rows")),
                f"{case['per_s_ratio']:.2f}",
                f"{case['mean_ratio']:.2f}",
            ]
            for case in document["cases"]
        ),
    )


def case_text(case: dict[str, Any]) -> str:
    """In words."""
    if case["loop"] == "open":
        return f"open loop, {case['load']:.0%} load"
    think = f", {1000 * case['think_s']:g} ms between" if case["think_s"] else ""
    return f"closed loop, {case['clients']} client{'s' * (case['clients'] > 1)}{think}"
