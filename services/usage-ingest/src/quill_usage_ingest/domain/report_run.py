"""A run of generation v2: one region's reports for one UTC day, in chunk files that a manifest lists."""

from dataclasses import dataclass
from datetime import date, datetime

from quill_usage_ingest.domain.completeness import Completeness


class BrokenRun(Exception):
    """A run that cannot be read as it lies in the bucket.

    Args:
        code: for machines.
        detail: for people.
        attribute: the field of pointer or manifest that is to blame, where it is known.
    """

    def __init__(self, code: str, detail: str, attribute: str | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.attribute = attribute


@dataclass(frozen=True, slots=True)
class ReportRun:
    """What the pointer promised. ``as_of`` is when the run began to count: it ranks the run's claims (L1)."""

    run_id: str
    source: str
    date: date
    completeness: Completeness
    as_of: datetime
    bucket: str
    manifest_key: str
    chunk_prefix: str
    chunk_count: int
    organizations: int


@dataclass(frozen=True, slots=True)
class RunPosition:
    """How far a run was copied: chunks before ``chunk`` wholly, and ``line`` lines of that one."""

    chunk: int = 0
    line: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the manifest says of its run."""

    run_id: str
    date: date
    completeness: Completeness
    chunk_keys: tuple[str, ...]
    organizations: int


def check_manifest(manifest: Manifest, run: ReportRun) -> None:
    """The manifest and the pointer must tell the same story.

    Raises:
        BrokenRun: naming the first thing they disagree on.
    """
    said = {
        "run_id": (manifest.run_id, run.run_id),
        "date": (manifest.date, run.date),
        "report_completeness": (manifest.completeness, run.completeness),
        "chunk_count": (len(manifest.chunk_keys), run.chunk_count),
        "total_orgs": (manifest.organizations, run.organizations),
    }
    for name, (of_manifest, of_pointer) in said.items():
        if of_manifest != of_pointer:
            detail = f"{name}: the manifest says {of_manifest}, the pointer {of_pointer}"
            raise BrokenRun("wrong_manifest", detail, name)
    for key in manifest.chunk_keys:
        if not key.startswith(run.chunk_prefix):
            detail = f"chunk_keys: {key} is not under {run.chunk_prefix}"
            raise BrokenRun("wrong_manifest", detail, "chunk_keys")
    if len(set(manifest.chunk_keys)) != len(manifest.chunk_keys):
        raise BrokenRun("wrong_manifest", "chunk_keys: a chunk is listed twice", "chunk_keys")


def check_lines(lines: int, run: ReportRun) -> None:
    """All chunks together hold one line per organization, as pointer and manifest promised.

    Raises:
        BrokenRun: an organization is missing, or there is one too many.
    """
    if lines != run.organizations:
        detail = f"total_orgs: the manifest says {run.organizations}, the chunks hold {lines} lines"
        raise BrokenRun("wrong_line_count", detail, "total_orgs")
