"""How uv is called: under no configuration but ours, and with a person's own index, cache and network."""

from __future__ import annotations

import os

from uv import find_uv_bin

# What a person may say of where packages come from. Every other variable of uv (UV_OVERRIDE, UV_CONFIG_FILE,
# UV_PRERELEASE, ...) would change what is resolved or where it is written.
_KEPT = frozenset(
    {
        *("UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX", "UV_OFFLINE"),
        *("UV_CACHE_DIR", "UV_NO_CACHE", "UV_LINK_MODE", "UV_LOCK_TIMEOUT"),
        *("UV_HTTP_TIMEOUT", "UV_HTTP_CONNECT_TIMEOUT", "UV_REQUEST_TIMEOUT", "UV_HTTP_RETRIES"),
        *(
            "UV_NATIVE_TLS",
            "UV_SYSTEM_CERTS",
            "UV_INSECURE_HOST",
            "UV_KEYRING_PROVIDER",
            "UV_CREDENTIALS_DIR",
        ),
        *("UV_CONCURRENT_DOWNLOADS", "UV_CONCURRENT_INSTALLS"),
    }
)


def uv_command(*arguments: str) -> list[str]:
    """A command line of uv that reads no uv.toml and no pyproject.toml's [tool.uv]: of the current folder, those above
    it, or the person's."""
    return [find_uv_bin(), "--no-config", *arguments]


def uv_environment() -> dict[str, str]:
    """The variables that uv is given: this process's, and of uv's own only those that say where packages come from."""
    return {
        name: value
        for name, value in os.environ.items()
        # UV_INDEX, UV_INDEX_URL, UV_INDEX_STRATEGY, UV_INDEX_<name>_PASSWORD
        if not name.startswith("UV_") or name in _KEPT or name.startswith("UV_INDEX")
    }
