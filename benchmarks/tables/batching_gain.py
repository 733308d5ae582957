"""Requests a second with batches and one by one, by model and connections."""

from tables.markdown import Document, table


def lines(document: Document) -> list[str]:
    """A row a model and number of connections."""
    header = [
        "model",
        "connections",
        "one by one, requests/s",
        "p99 ms",
        "batched, requests/s",
        "p99 ms",
        "rows a batch",
    ]
    rows = []
    for name, model in document["models"].items():
        for connections, cell in model["by_connections"].items():
            one, batched = cell["one by one"], cell["batched"]
            rates = [one["per_s"], one["p99_ms"], batched["per_s"], batched["p99_ms"], batched["batch_mean_rows"]]
            spread = f"{cell['gain']:.2f} ({min(cell['gains']):.2f} to {max(cell['gains']):.2f})"
            rows.append([f"{name}: {model['doc']}", int(connections), *rates, spread])
    return table([*header, "gain"], rows)
