"""What the documents name exists."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEST = re.compile(r"`(test_[a-z0-9_]+)`")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


def test_every_test_that_the_invariants_name_exists():
    named = set(TEST.findall((ROOT / "docs/invariants.md").read_text("utf-8")))
    sources = "\n".join(
        path.read_text("utf-8")
        for folder in ("libs", "services", "apps", "devtools", "tests")
        for path in (ROOT / folder).rglob("test_*.py")
    )
    assert len(named) > 30
    assert {name for name in named if f"def {name}(" not in sources} == set()


def test_every_law_has_a_row():
    text = (ROOT / "docs/invariants.md").read_text("utf-8")
    assert [number for number in range(1, 22) if f"**L{number}**" not in text] == []


def test_links_of_the_documents_lead_somewhere():
    documents = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/*/README.md")]
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents
        for target in LINK.findall(document.read_text("utf-8"))
        if not (document.parent / target).exists()
    ]
    assert broken == []


def test_every_make_target_of_the_readme_exists():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"(?:`|^)make ([a-z]+)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE))
    assert {"demo", "test"} <= targets
    assert {target for target in targets if f"\n{target}:" not in makefile} == set()


def test_every_package_says_what_it_owns_and_what_it_does_not():
    for package in sorted(ROOT.glob("libs/*/pyproject.toml")) + sorted(ROOT.glob("services/*/pyproject.toml")):
        text = (package.parent / "README.md").read_text("utf-8").lower()
        for said in (("owns",), ("not own",), ("failure", "how it fails", "goes wrong")):
            assert any(words in text for words in said), (package, said)
