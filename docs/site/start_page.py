"""The site's first page: the first screen of README.md, with its links as the site has them."""

import re
from pathlib import Path

README = Path(__file__).resolve().parent.parent.parent / "README.md"
_END = "\n## What works"


def start_page() -> str:
    """Return the page."""
    text = README.read_text(encoding="utf-8")
    assert _END in text, "README.md: its first screen ends before '## What works'"
    first = text[: text.index(_END)]
    first = re.sub(r"""(\]\(|src=")docs/""", r"\1", first)
    return f"{first}\n{_WHERE}"


_WHERE = """## Where to go on

| you want to | read |
|---|---|
| go from photographs to a gallery that can be searched | [From photographs to a gallery](tutorial.md) |
| train what others have trained | [Recipes](recipes.md) |
| bring a configuration of arcface_torch along | [From arcface_torch](migration.md) |
| make a set of your own photographs | [From photographs to a set](prepare.md) |
| know what a key means | [Configuration](configuration.md) |
| judge a model as the field does | [Evaluation](evaluation.md) |
| give a model to others | [Export](export.md) |
| train on a cluster | [From one machine to many](cluster.md) |
| take the head alone into a loop of your own | [The head](head.md), [Python](api.md) |
| get an answer to what everybody asks | [Questions](faq.md) |
"""
