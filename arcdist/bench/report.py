"""A head benchmark for people: tables on the terminal, pictures of time and memory over the number of classes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from arcdist.errors import DataError


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    """Yield the tables of floors, of gradient errors, and of each case's steps."""
    yield from map(_floors_table, result["floors"])
    yield _errors_table(result["gradient_errors"])
    for case, rows in _cases(result["rows"]):
        yield _steps_table(case, rows)


def draw(folder: str | Path, result: Mapping[str, Any]) -> list[Path]:
    """Write a picture of time and transient memory for each batch size and allocator; return their paths.

    Raises DataError where the folder cannot be written.
    """
    from arcdist.evaluate import plots  # matplotlib takes a second to import

    machine = result["machine"]
    place = machine.get("gpu") or f"{machine['cpu']}, {machine['threads']} threads"
    series: dict[tuple[int, int, str], dict[str, list[tuple[int, float, float]]]] = {}
    for row in result["rows"]:
        if "skipped" not in row:
            case = row["case"]
            lines = series.setdefault((case["batch_size"], case["ranks"], case["allocator"]), {})
            point = (case["num_classes"], row["median_s"], max(1.0, row["transient_mib"]))
            lines.setdefault(row["implementation"], []).append(point)
    drawn: list[Path] = []
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        for (batch_size, ranks, allocator), lines in series.items():
            drawn.append(Path(folder) / f"head_b{batch_size}_r{ranks}_{allocator}.png")
            note = f"batch size {batch_size}, {_ranks(ranks)}, allocator {_words(allocator)}; {place}"
            plots.cost_over_classes(drawn[-1], lines, note)
    except OSError as error:
        raise DataError(f"{error.filename or folder}: cannot be written: {error.strerror}") from error
    return drawn


def _cases(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[tuple[int, int, int, str], list[Mapping[str, Any]]]]:
    grouped: dict[tuple[int, int, int, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        case = row["case"]
        sizes = (case["num_classes"], case["batch_size"], case["ranks"], case["allocator"])
        grouped.setdefault(sizes, []).append(row)
    yield from grouped.items()


def _steps_table(case: tuple[int, int, int, str], rows: Sequence[Mapping[str, Any]]) -> Table:
    num_classes, batch_size, ranks, allocator = case
    sizes = f"{num_classes:,} classes, batch size {batch_size}, {_ranks(ranks)}"
    table = _table(f"Step: {sizes}, allocator {_words(allocator)}", "head")
    for heading in ("ms", "±", "forward", "backward", "update", "transient", "×", "products"):
        table.add_column(heading, justify="right")
    for row in rows:
        if "skipped" in row:
            continue
        table.add_row(
            row["implementation"],
            _ms(row["median_s"]),
            f"{(row['p80_s'] - row['p20_s']) / 2 / row['median_s']:.0%}",
            *(_ms(row[part]["median_s"]) for part in ("forward", "backward", "update")),
            f"{row['transient_mib']:,.0f}",
            f"{row['speedup']:.2f}" if row["speedup"] else "–",
            f"{row['product_share']:.0%}" if "product_share" in row else "",
        )
    notes = [f"{row['implementation']}: {row['skipped']}" for row in rows if "skipped" in row]
    notes.append("±: half of p20 to p80. transient: MiB beside centers and momentum. ×: times as fast as its baseline.")
    notes.append("products: share of the step that the method's own matrix products take at the best rates above.")
    table.caption = "\n".join(notes)
    return table


def _errors_table(errors: Sequence[Mapping[str, Any]]) -> Table:
    case = errors[0]["case"]
    sizes = f"{case['num_classes']:,} classes, batch size {case['batch_size']}"
    table = _table(f"Relative errors against float64: {sizes}", "head")
    table.caption = "target cosine 0.7 before ArcFace's margin; without a margin, the same logits"
    for heading in ("loss", "embeddings' gradient", "centers' gradient"):
        table.add_column(heading, justify="right")
    for row in errors:
        table.add_row(row["implementation"], *(f"{row[key]:.1e}" for key in ("loss", "embeddings", "centers")))
    return table


def _floors_table(floors: Mapping[str, Any]) -> Table:
    sizes = f"batch size {floors['batch_size']}, {floors['embedding_dim']} dimensions"
    table = _table(f"This machine's best rates: {sizes}", "product")
    blocks = sorted({row["block"] for row in floors["products"]})
    for heading in ("form", "dtype", "library", *(f"block {block:,}" for block in blocks)):
        table.add_column(heading, justify="right")
    grouped: dict[tuple[str, ...], dict[int, float]] = {}
    for row in floors["products"]:
        kind = (row["product"], row["form"], row["dtype"], row["library"])
        grouped.setdefault(kind, {})[row["block"]] = row["gflop_per_s"]
    for names, rates in grouped.items():
        table.add_row(*names, *(f"{rates[block]:,.0f}" if block in rates else "" for block in blocks))
    table.caption = f"GFLOP/s; exp {floors['exp_g_per_s']} G/s; copy {floors['copy_gb_per_s']} GB/s, read and written"
    return table


def _table(title: str, first: str) -> Table:
    table = Table(title=title, box=box.SIMPLE, title_justify="left", title_style="bold", caption_justify="left")
    table.add_column(first, no_wrap=True)
    return table


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:,.{0 if seconds >= 0.1 else 2}f}"


def _ranks(count: int) -> str:
    return "1 process" if count == 1 else f"{count} processes"


def _words(name: str) -> str:
    return name.replace("_", " ")
