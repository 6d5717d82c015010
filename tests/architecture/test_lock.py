"""The lock names versions and hashes, and no address of any registry or machine."""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
ADDRESS = re.compile(r"(https?|file|git\+\w+|ssh)://")
LOCK_NAMES = ("*.lock", "*lock.json", "requirements*.txt", "uv.lock", ".npmrc", "pip.conf")


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, check=True, capture_output=True, text=True)
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_no_lock_file_names_an_address():
    locks = tracked(*LOCK_NAMES)
    assert LOCK in locks
    assert [str(path) for path in locks if ADDRESS.search(path.read_text("utf-8"))] == []


def test_every_locked_package_is_pinned_and_hashed():
    text = LOCK.read_text("utf-8").replace("\\\n", " ")
    packages = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert len(packages) > 50
    for line in packages:
        assert re.match(r"^[a-z0-9._-]+==[^ ]+ ", line), line
        assert "--hash=sha256:" in line, line


def test_no_tracked_file_names_a_registry_host_or_a_path_of_this_machine():
    hosts = (
        "pypi" + ".org",
        "files.pythonhosted" + ".org",
        "repo.maven" + ".apache.org",
        "repo1.maven" + ".org",
        "registry.npmjs" + ".org",
        "deb.debian" + ".org",
        "proxy.golang" + ".org",
        "/work" + "/main",
        "/root" + "/",
    )
    found = []
    for path in tracked():
        if path.is_file() and path.stat().st_size < 2_000_000:
            text = path.read_bytes().decode("utf-8", "ignore")
            found += [f"{path.relative_to(ROOT)}: {host}" for host in hosts if host in text]
    assert found == []
