"""A run as one HTML file that can be mailed: what it reached, its pictures, its configuration; no request leaves it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from arcdist.checkpoint.run_config import RUN_CONFIG, read_run_config
from arcdist.errors import DataError

_PICTURES = ("loss", "angles", "roc")
_STYLE = """:root{color-scheme:light dark;--ink:#222;--muted:#6b6b6b;--line:#e4e4e4;--box:#f6f6f6;--page:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#ddd;--muted:#9a9a9a;--line:#3a3a3a;--box:#262626;--page:#1b1b1b}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:60rem;margin:2rem auto;
padding:0 1rem}
h1{margin-bottom:0}p.note{color:var(--muted);margin-top:0}img{max-width:100%;border-radius:6px}
div{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .9rem .25rem 0;text-align:left;vertical-align:top}td{overflow-wrap:anywhere}
th{color:var(--muted);font-weight:500;white-space:nowrap}tr{border-bottom:1px solid var(--line)}
details{margin:1.5rem 0}pre{background:var(--box);padding:1rem;overflow:auto;font-size:13px}"""
_HEAD = (
    '<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width,initial-scale=1">'
    "<title>{}</title><style>{}</style>"
)
_MOST_BYTES = 2_000_000


def html_report(folder: Path) -> str:
    """Return the report of a finished run's folder.

    Errors: DataError where the run has no ``summary.json``, or the report would be larger than 2 MB; NewerError where a
        newer arcdist has written the run.
    """
    summary = _summary(folder / "summary.json")
    shown = {key: value for key, value in summary.items() if not isinstance(value, dict) and key != "machine"}
    parts = [
        Markup("<h1>{}</h1><p class=note>{}</p>").format(summary.get("name", folder.name), summary.get("machine", "")),
        _sets(summary.get("sets", {})),
        *(_picture(folder / f"{name}.png") for name in _PICTURES),
        Markup("<h2>Run</h2>") + _table(shown),
        Markup("<h2>Environment</h2>") + _table(summary.get("versions", {})),
    ]
    if (folder / RUN_CONFIG).exists():
        read_run_config(folder)
        config = (folder / RUN_CONFIG).read_text(encoding="utf-8")
        parts.append(Markup("<details><summary>Configuration</summary><pre>{}</pre></details>").format(config))
    head = Markup(_HEAD).format(summary.get("name", folder.name), Markup(_STYLE))
    page = head + Markup("\n").join(parts) + Markup("</html>\n")
    if len(page.encode()) > _MOST_BYTES:
        raise DataError(f"{folder}: its report would have {len(page.encode()):,} bytes, over {_MOST_BYTES:,}")
    return str(page)


def _summary(path: Path) -> dict[str, Any]:
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); a report is of a run that has come to its end") from None
    if not isinstance(summary, dict):
        raise DataError(f"{path}: is no summary of a run")
    return summary


def _sets(sets: dict[str, Any]) -> Markup:
    if not sets:
        return Markup("")
    rows = [
        Markup("<tr><td>{}<td>{:,}<td>{:.2f} ± {:.2f}<td>{:.2f}<td>{:.3f}").format(
            *(name, one["pairs"], 100 * one["accuracy"], 100 * one["std"], 100 * one["eer"], 100 * one["auc"])
        )
        for name, one in sets.items()
    ]
    head = Markup("<h2>Verification, %</h2><div><table><tr><th>set<th>pairs<th>accuracy<th>EER<th>AUC")
    return head + Markup("").join(rows) + Markup("</table></div>")


def _picture(path: Path) -> Markup:
    if not path.exists():
        return Markup("")
    data = base64.b64encode(path.read_bytes()).decode()
    return Markup('<p><img alt="{}" src="data:image/png;base64,{}">').format(path.stem, data)


def _table(values: dict[str, Any]) -> Markup:
    rows = (Markup("<tr><th>{}<td>{}").format(key, escape(_written(value))) for key, value in values.items())
    return Markup("<div><table>") + Markup("").join(rows) + Markup("</table></div>")


def _written(value: Any) -> str:
    """Return a value as a person reads it: thousands apart, no digits that mean nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
