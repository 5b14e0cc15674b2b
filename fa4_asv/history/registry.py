"""FA4's releases on the package registry: what there is, when it was uploaded, a checked download."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

import requests
from packaging.version import InvalidVersion, Version
from pypi_simple import (
    PYPI_SIMPLE_ENDPOINT,
    DistributionPackage,
    NoSuchProjectError,
    PyPISimple,
    UnsupportedRepoVersionError,
)

from fa4_asv.base.errors import Fa4AsvError
from fa4_asv.base.escape import one_line
from fa4_asv.base.files import read_bytes
from fa4_asv.history.download import Limits, limited_session
from fa4_asv.history.manifest import PROJECT, Release

# The index variables of this project, pip and uv, in that order.
INDEX_VARIABLES = ("FA4_ASV_INDEX_URL", "PIP_INDEX_URL", "UV_DEFAULT_INDEX")
# FA4's first commit is of 2025-06. What enters the manifest stays in it, so an impossible day must not.
_FIRST_DAY = datetime(2025, 1, 1, tzinfo=timezone.utc)
_CLOCKS_DIFFER = timedelta(days=1)


def index_url() -> str:
    """The simple index asked for, or the public one that pip uses."""
    for name in INDEX_VARIABLES:
        if os.environ.get(name):
            return os.environ[name]
    return PYPI_SIMPLE_ENDPOINT


@contextmanager
def _said_clearly(doing: str, project: str = PROJECT) -> Iterator[None]:
    """Every way in which a registry fails, as one Fa4AsvError; a password in its address is left out."""
    try:
        yield
    except NoSuchProjectError:
        raise Fa4AsvError(
            f"the registry knows no {project}; {INDEX_VARIABLES[0]} names another index"
        ) from None
    except requests.ConnectionError as error:
        raise Fa4AsvError(
            f"no network while {doing} ({type(error).__name__}); try again, nothing was lost"
        ) from None
    except (requests.RequestException, UnsupportedRepoVersionError, ValueError, RecursionError) as error:
        message = re.sub(r"//[^/@\s]+@", "//", one_line(str(error), 10_000))[:200]
        raise Fa4AsvError(f"the registry failed while {doing}: {message}") from None
    except OSError as error:  # the disk: what requests raises is caught above
        raise Fa4AsvError(f"failed while {doing}: {error.strerror or error}; nothing was changed") from None


def versions_between(name: str, old: str, new: str, day: datetime) -> list[str]:
    """Versions of the package `name` strictly between two, in the order that leads from `old` to `new`.

    Prereleases too, but not what was uploaded after `day` or was yanked. Raises Fa4AsvError.
    """
    with _said_clearly(f"listing {name}", name):
        page = PyPISimple(index_url(), session=limited_session(Limits())).get_project_page(name)
    low, high = sorted((Version(old), Version(new)))
    versions = set()
    for package in page.packages:
        late = package.upload_time is not None and package.upload_time > day
        if package.version is None or late or package.is_yanked:
            continue
        with suppress(InvalidVersion):
            version = Version(package.version)
            if low < version < high:
                versions.add(version)
    return [str(version) for version in sorted(versions, reverse=Version(old) > Version(new))]


def _upload_time(filename: str, time: datetime) -> str:
    """UTC as ISO 8601, to the microsecond. Raises Fa4AsvError for a day on which no release can have been uploaded."""
    last = datetime.now(timezone.utc) + _CLOCKS_DIFFER
    try:
        uploaded = time.astimezone(timezone.utc)
    except (OverflowError, ValueError):  # the last hours of the year 9999
        uploaded = datetime.max.replace(tzinfo=timezone.utc)
    if not _FIRST_DAY <= uploaded <= last:
        raise Fa4AsvError(
            f"the registry says that {filename} was uploaded on {time:%Y-%m-%d}, expected a day from {_FIRST_DAY:%Y-%m-%d} "
            f"to {last:%Y-%m-%d}; use another index, or set this machine's clock"
        )
    return uploaded.isoformat(timespec="microseconds").replace("+00:00", "Z")


class Registry:
    """One session with the registry."""

    def __init__(self, limits: Limits = Limits()) -> None:  # noqa: B008 - frozen
        self._client = PyPISimple(index_url(), session=limited_session(limits))
        self._packages: dict[str, DistributionPackage] = {}

    def releases(self) -> list[Release]:
        """Every FA4 release with an sdist, oldest upload first. Raises Fa4AsvError.

        Versions below 4 are a placeholder of the name and are left out.
        """
        with _said_clearly(f"listing {PROJECT}"):
            page = self._client.get_project_page(PROJECT)
        found_releases = [release for package in page.packages if (release := self._release(package))]
        if not found_releases:
            raise Fa4AsvError(f"the registry lists no sdist of {PROJECT} 4 or later")
        return sorted(found_releases, key=lambda release: (release.uploaded, Version(release.version)))

    def _release(self, package: DistributionPackage) -> Release | None:
        # One archive a version: PEP 625 knows .tar.gz alone, old registries list a .zip beside it.
        if not package.filename.endswith(".tar.gz") or package.version is None:
            return None
        try:
            version = Version(package.version)
        except InvalidVersion:
            return None
        if version.major < 4:
            return None
        # Both become names: of a tag, a folder, a file.
        expected = f"flash_attn_4-{version}.tar.gz"
        if package.version != str(version) or package.filename.replace("-", "_") != expected.replace(
            "-", "_"
        ):
            raise Fa4AsvError(
                f"the registry lists {package.filename[:80]!a}, expected {expected}; "
                f"{INDEX_VARIABLES[0]} names another index"
            )
        sha256 = package.digests.get("sha256", "")
        if package.upload_time is None:
            raise Fa4AsvError(
                f"the registry gives no upload-time for {package.filename}: a release needs its day; "
                f"{INDEX_VARIABLES[0]} names another index"
            )
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise Fa4AsvError(f"the registry gives no sha256 for {package.filename}; it cannot be checked")
        yanked = one_line(package.yanked_reason or "yanked") if package.is_yanked else ""
        self._packages[package.version] = package
        uploaded = _upload_time(package.filename, package.upload_time)
        return Release(package.version, package.filename, sha256, uploaded, "", yanked)

    def download(self, release: Release, folder: Path) -> Path:
        """The sdist of `release` in `folder`, checked against the manifest's sha256. Raises Fa4AsvError."""
        package = self._packages.get(release.version)
        if package is None:
            raise Fa4AsvError(f"{release.version} is in the manifest but no longer on the registry")
        path = folder / Path(release.sdist).name
        with _said_clearly(f"downloading {release.sdist}"):
            # verify: ours below, against the manifest and not against what the registry says today
            self._client.download_package(package, path, verify=False)
        got = hashlib.sha256(read_bytes(path, Limits.size, "sync again")).hexdigest()
        if got != release.sha256:
            path.unlink()
            raise Fa4AsvError(
                f"{release.sdist} is corrupt: sha256 {got}, expected {release.sha256}; sync again"
            )
        return path
