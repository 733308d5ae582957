"""API keys: which there are, whose a key is, and the file that may change while the server runs.

    REDSERVE_*_KEYS ─┐
    api_keys_file  ──┴─> ApiKeys: SHA-256 digests by scope ─> scopes_of(key)
          └─ read each second ─ changed ─> the new keys   broken, vanished or opening a scope ─> the old keys stay

A key is kept as its digest, so that no log and no trace can show it. The file is compared by what is in it: times and
sizes miss a change within the clock tick of the one before.
"""

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from redserve.models.daemon import in_daemon_thread

logger = logging.getLogger("redserve.server")

SCOPES = ("inference", "metrics", "admin")
"""What a key may be for."""

MIN_KEY_CHARACTERS = 16

LOOK_EVERY_S = 1.0

_HASHED = "sha256:"
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_KEY = re.compile(r"[!-+\--~]+")  # visible ASCII without the comma, which separates keys in a variable


class ApiKeys:
    """The keys of each scope; a scope without keys is open to all.

    Args:
        digests: SHA-256 of each key, by scope.
    """

    def __init__(self, digests: Mapping[str, frozenset[bytes]] = {}) -> None:
        self._digests = {scope: digests.get(scope, frozenset()) for scope in SCOPES}

    @classmethod
    def parse(cls, entries: Mapping[str, object]) -> Self:
        """The keys of `{"inference": ["KEY", "sha256:HEX", ...], ...}`.

        Raises:
            ValueError: A scope is unknown, or a key too short or no key; the message names its place, never the key.
        """
        for name in entries:
            if name not in SCOPES:  # what is long may be a key, written on the wrong side
                shown = repr(name) if len(name) < MIN_KEY_CHARACTERS else f"a name of {len(name)} characters"
                raise ValueError(f"{shown} is none of {', '.join(SCOPES)}")
        return cls({scope: frozenset(_digests(scope, keys)) for scope, keys in entries.items()})

    def guards(self, scope: str) -> bool:
        """Whether `scope` needs a key."""
        return bool(self._digests[scope])

    def scopes_of(self, key: bytes) -> frozenset[str]:
        """What `key` is for; empty for an unknown one. It takes as long for any key."""
        sent = hashlib.sha256(key).digest()
        matches = [
            (scope, hmac.compare_digest(sent, digest)) for scope, digests in self._digests.items() for digest in digests
        ]
        return frozenset(scope for scope, is_match in matches if is_match)

    def counts(self) -> dict[str, int]:
        """How many keys each scope has."""
        return {scope: len(digests) for scope, digests in self._digests.items()}

    def __or__(self, other: "ApiKeys") -> "ApiKeys":
        return ApiKeys({scope: self._digests[scope] | other._digests[scope] for scope in SCOPES})


class Keyring:
    """The keys in force: fixed ones, and those of a file that may change.

    Args:
        fixed: Keys that stay.
        path: A TOML file with further ones, or `None`.

    Attributes:
        keys: All of them now.

    Raises:
        ValueError: The file cannot be read, is wrong, or holds no key.
    """

    def __init__(self, fixed: ApiKeys, path: Path | None = None) -> None:
        self.keys = fixed
        self._fixed = fixed
        self._path = path
        self._seen = b""  # digest of the file as it was last taken over
        self._complaint = ""
        if path is not None:
            self._read(path)

    @property
    def may_guard(self) -> bool:
        """Whether any scope needs a key, or may come to."""
        return self._path is not None or any(map(self.keys.guards, SCOPES))

    async def follow(self) -> None:
        """Look at the file each second, in a thread, until cancelled."""
        while self._path is not None:
            await asyncio.sleep(LOOK_EVERY_S)
            with contextlib.suppress(RuntimeError):  # no thread is to be had: the next second may have one
                await in_daemon_thread(self.look, name="redserve-keys")

    def look(self) -> None:
        """Take over the file's keys if it has changed. If that is not possible, say so once, and keep the old ones."""
        if self._path is None:
            return
        try:
            has_changed = self._read(self._path)
        except Exception as error:  # whatever is wrong with it, requests go on with the old keys
            if self._complaint != str(error):
                self._complaint = str(error)
                logger.error("API keys cannot be read again, the old ones stay", extra={"why": self._complaint})
            return
        self._complaint = ""
        if has_changed:
            logger.info("API keys were read again", extra=self.keys.counts())

    def _read(self, path: Path) -> bool:
        """Take over what is in the file; return whether it had changed."""
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe would give its keys once, and then keep us waiting
                raise ValueError("is no regular file")
            content = path.read_bytes()
            found = hashlib.sha256(content).digest()
            if found == self._seen:
                return False
            keys = ApiKeys.parse(tomllib.loads(content.decode()))
            if not any(keys.counts().values()):
                raise ValueError("holds no key")
            keys |= self._fixed
            for scope in SCOPES:  # a file that is half written must not open a door
                if self.keys.guards(scope) and not keys.guards(scope):
                    raise ValueError(f"has no key for {scope} any more; restart the server to open that to all")
        except OSError as error:
            raise ValueError(f"api_keys_file {str(path)!r}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise ValueError(f"api_keys_file {str(path)!r}: {error}") from error
        self.keys = keys
        self._seen = found
        return True


def _digests(scope: str, keys: object) -> Sequence[bytes]:
    if not isinstance(keys, list):
        raise ValueError(f'{scope} must be a list of keys: {scope} = ["..."]')
    return [_digest(f"{scope}[{index}]", key) for index, key in enumerate(keys)]


def _digest(place: str, key: object) -> bytes:
    if not isinstance(key, str):
        raise ValueError(f"{place} must be a string")
    if key.startswith(_HASHED):
        if not _DIGEST.fullmatch(key.removeprefix(_HASHED)):
            raise ValueError(f"{place} must have 64 hexadecimal digits after {_HASHED}")
        return bytes.fromhex(key.removeprefix(_HASHED))
    if len(key) < MIN_KEY_CHARACTERS:
        raise ValueError(f"{place} must have at least {MIN_KEY_CHARACTERS} characters, not {len(key)}")
    if not _KEY.fullmatch(key):
        raise ValueError(f"{place} must be visible ASCII characters, without spaces and commas")
    return hashlib.sha256(key.encode()).digest()
