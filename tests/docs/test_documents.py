"""What the documents say about the code, held against the code."""

import re
from pathlib import Path

import pytest

from indexer.settings import IndexerSettings
from retrieval import keys
from retrieval.settings import StoreSettings
from retrieval.store import Store
from retrieval.tables import METADATA
from service.settings import ServiceSettings
from tests.support.content import published, some_rows

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")])
LINK = re.compile(r"\[[^\]]*\]\((?!https?://|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    """A relative link names a file or folder of the project."""
    for target in LINK.findall(document.read_text()):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_setting_is_in_the_table_and_no_other() -> None:
    """docs/settings.md names each environment variable once, with its default, and invents none."""
    page = (ROOT / "docs/settings.md").read_text()
    table = dict(re.findall(r"^\| `(FEED_[A-Z0-9_]+)` \| `?([^|`]*)`? \|", page, re.M))
    fields = StoreSettings.model_fields | IndexerSettings.model_fields | ServiceSettings.model_fields
    assert set(table) == {f"FEED_{name.upper()}" for name in fields}
    for name, field in fields.items():
        shown = table[f"FEED_{name.upper()}"].strip()
        if name != "encoder_threads":  # one per core: differs from machine to machine
            assert shown == str(field.default), f"FEED_{name.upper()}"


def test_the_data_model_names_every_table_and_key_and_no_other() -> None:
    """docs/design.md has a row for each SQL table and each pattern of Redis keys."""
    page = (ROOT / "docs/design.md").read_text()
    sql, redis = (page.split(f"### {name}")[1].split("\n### ")[0] for name in ("SQL", "Redis"))
    assert sorted(re.findall(r"^\| `([a-z_]+)` \|", sql, re.M)) == sorted(METADATA.tables)
    known = re.findall(r"^\| `([^`]+)` +\|", keys.__doc__ or "", re.M)
    assert re.findall(r"^\| `([^`]+)` \|", redis, re.M) == known


def test_the_notebooks_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The code in notebooks/README.md, run as it stands beside a published snapshot, prints a personalised feed."""
    published(Store(tmp_path / "var/snapshots"), "pycon-us", 1, some_rows(range(60)))
    monkeypatch.chdir(tmp_path)
    code = (ROOT / "notebooks/README.md").read_text().split("```python")[1].split("```")[0]
    exec(compile(code, "notebooks/README.md", "exec"), {})  # noqa: S102 - that is the test
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 20
    assert any(line.startswith("for_you") for line in printed)
