"""Files of the Hugging Face hub: from its cache on this machine, else fetched once."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_DENIED = (401, 403)  # HTTP: the terms are to be accepted first, or there is no such repository


class FetchError(Exception):
    """A file that is neither in the cache nor to be had."""

    def __init__(self, wanted: str, cache: str, reason: Exception) -> None:
        super().__init__(f"{wanted} is not in {cache} and cannot be fetched")
        self.wanted, self.cache, self.reason = wanted, cache, reason

    @property
    def denied(self) -> bool:
        """Whether the hub answered and refused, as it does until a repository's terms are accepted."""
        return getattr(getattr(self.reason, "response", None), "status_code", None) in _DENIED


def fetched(repository: str, names: Sequence[str]) -> str:
    """Return the path of the first of some files that a repository has; `repository` may name a revision behind an @.

    What is in the cache is taken from there, without asking the hub.

    Raises:
        FetchError: It is not there, and cannot be fetched.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    repository, _, at = repository.partition("@")
    revision = at or None
    for name in names:
        if isinstance(cached := hub.try_to_load_from_cache(repository, name, revision=revision), str):
            return cached
    reason: Exception = FileNotFoundError(f"it has none of {', '.join(names)}")
    try:
        for name in names:
            try:
                # Asked once; without a network the download itself would be tried again for a minute.
                hub.get_hf_file_metadata(hub.hf_hub_url(repository, name, revision=revision))
                return str(hub.hf_hub_download(repository, name, revision=revision))
            except EntryNotFoundError as error:
                if isinstance(error, LocalEntryNotFoundError):  # which is how the hub says that it cannot be reached
                    raise
    except Exception as error:  # noqa: BLE001 - each HTTP library under the hub raises exceptions of its own
        reason = error
    raise FetchError(f"{names[0]} of {hub.constants.ENDPOINT}/{repository}", hub.constants.HF_HUB_CACHE, reason)
