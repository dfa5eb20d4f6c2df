"""Build the site of docs/ strictly: ``python docs/site/make_site.py [OUT]``; OUT is ``site``.

A link, an anchor, a picture or a page that is not there, and a page that the navigation does not have, are errors.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml
from configuration_page import configuration_page
from recipes_page import recipes_page
from start_page import start_page

ROOT = Path(__file__).resolve().parent.parent.parent


def main(out: Path) -> int:
    """Build the site into a folder, which is replaced if it is empty or a site, and return the exit code."""
    if out.exists() and not (out / "index.html").is_file() and (out.is_file() or any(out.iterdir())):
        print(f"docs: {out}: is there and no site; it is not replaced", file=sys.stderr)
        return 1
    if not is_installed():
        print("docs: zensical is missing: pip install -e '.[docs]', with Python 3.11.5 or newer", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        lay_out(work)
        faults = build(work)
        if faults:
            print("\n".join(faults), file=sys.stderr)
            print("docs: not built, for what stands above", file=sys.stderr)
            return 1
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(work / "site", out)
    print(f"{out}: {len(list(out.rglob('index.html')))} pages")
    return 0


def is_installed() -> bool:
    """Return whether what builds the site is there: it is not for every Python that arcdist is for."""
    return find_spec("zensical") is not None and find_spec("mkdocstrings_handlers") is not None


def build(work: Path) -> list[str]:
    """Build a folder's mkdocs.yml and docs/ into its site/, and return what is wrong with them."""
    faults = list(_navigation_faults(work))
    if faults:
        return faults
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    built = subprocess.run(command, cwd=work, capture_output=True, text=True)
    if built.returncode:
        return [re.sub(r"\x1b\[[\d;]*m", "", built.stdout + built.stderr)]
    return list(_link_faults(work / "site"))


def lay_out(work: Path) -> None:
    """Put what the site is made of into a folder: docs/, the pages that are made, the package for its docstrings."""
    shutil.copytree(ROOT / "docs", work / "docs", ignore=shutil.ignore_patterns("site"))
    for name in ("mkdocs.yml", "docstring_paragraphs.py"):
        shutil.copy(ROOT / "docs/site" / name, work)
    shutil.copy(ROOT / "docs/site/site.css", work / "docs")
    (work / "arcdist").symlink_to(ROOT / "arcdist")
    for name, page in (("index", start_page), ("configuration", configuration_page), ("recipes", recipes_page)):
        (work / f"docs/{name}.md").write_text(page(), encoding="utf-8")


def _navigation_faults(work: Path) -> Iterator[str]:
    """Yield the pages of the navigation that are not there, and those that it lacks."""
    listed = set(_pages(yaml.safe_load((work / "mkdocs.yml").read_text())["nav"]))
    there = {str(path.relative_to(work / "docs")) for path in (work / "docs").rglob("*.md")}
    yield from (f"mkdocs.yml: nav: {name}: no such page in docs/" for name in sorted(listed - there))
    yield from (f"docs/{name}: is not in the navigation of docs/site/mkdocs.yml" for name in sorted(there - listed))


def _pages(entry: object) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    elif isinstance(entry, dict):
        for inner in entry.values():
            yield from _pages(inner)
    elif isinstance(entry, list):
        for inner in entry:
            yield from _pages(inner)


class _Page(HTMLParser):
    """What a page of the site links to, and what can be linked to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take a tag's id and what it refers to."""
        for name, value in attrs:
            if name == "id" and value:
                self.anchors.add(value)
            elif name in ("href", "src") and value:
                self.targets.append(value)


def _link_faults(site: Path) -> Iterator[str]:
    """Yield what pages refer to and the site lacks, files and anchors, and what a page would fetch from elsewhere."""
    pages = {path: _Page(path) for path in site.rglob("*.html")}
    for path, page in pages.items():
        name = path.relative_to(site)
        if str(name) == "404.html":  # its links are those of the site's root, wherever that will be
            continue
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            found = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            found = found / "index.html" if found.is_dir() else found
            if not found.exists():
                yield f"{name}: {target}: is not there"
            elif parts.fragment and found in pages and unquote(parts.fragment) not in pages[found].anchors:
                yield f"{name}: {target}: has no such anchor"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "site")))
