"""Takes secrets out of what MLflow, its HTTP client, database drivers and the environment say."""

from __future__ import annotations

import base64
import os
import re
from urllib.parse import quote, quote_plus, unquote, unquote_plus

_MASK = "***"
_QUERY = re.compile(r"(?<=[^\s'\"])[?#](?=[^\s'\"<>)]*=)[^\s'\"<>)]+")
# An authority may hold several @, of which the last ends the user info; a password may even hold a slash.
_USER_INFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)(?:[^\s'\"<>?#/][^\s'\"<>?#]*)?@", re.IGNORECASE)
_WORDS = r"(?:pass(?:word|wd|phrase)|pwd|token|secret|credentials?|(?:api|access|account)[_-]?key|user(?:name)?)"
_NAMED = re.compile(
    rf"({_WORDS}['\"]?\s*[=:]\s*|\buser\s+(?=[\"'])|\b(?:basic|bearer)\s+(?=\S*[\d=]))"
    r"(?:\"[^\"]*\"|'[^']*'|[^\s,;&'\")]+)",
    re.IGNORECASE,
)
_SECRETS = re.compile(r"(MLFLOW|DATABRICKS|AWS|AZURE)_.*(PASSWORD|TOKEN|SECRET|KEY)$")
_URIS = re.compile(r"MLFLOW_.*URI$")


def masked(text: str) -> str:
    """Return a text without the user info, tokens and queries of URLs, and without the environment's secrets."""
    for secret in sorted(_known_secrets(), key=len, reverse=True):
        # A short one is hidden where it stands alone, so that the text stays readable.
        pattern = re.escape(secret) if len(secret) > 3 else rf"(?<!\w){re.escape(secret)}(?!\w)"
        text = re.sub(pattern, _MASK, text, flags=re.IGNORECASE)  # %2F is %2f
    text = _QUERY.sub(f"?{_MASK}", text)
    text = _USER_INFO.sub(rf"\g<1>{_MASK}@", text)
    return _NAMED.sub(rf"\g<1>{_MASK}", text)


def _known_secrets() -> set[str]:
    """Return the secrets of MLflow's environment variables in every form in which a library may repeat them."""
    known = {value for name, value in os.environ.items() if _SECRETS.match(name)}
    user, password = os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")
    pairs = {f"{user}:{password}"} if user and password else set()
    for name, uri in os.environ.items():
        if _URIS.match(name):
            info = _user_info(uri)
            pairs |= {info} if ":" in info else set()
            known.add(info.partition(":")[2])
            known |= {value for _, _, value in (part.partition("=") for part in _query(uri)) if value}
    forms = {form(each) for each in known | pairs for form in (str, unquote, unquote_plus)}
    forms |= {form(each) for each in forms for form in (quote, quote_plus, _quoted_wholly, _escaped)}
    forms |= {base64.b64encode(unquote(pair).encode()).decode() for pair in pairs}
    return forms - {""}


def _user_info(uri: str) -> str:
    """Return what stands between a URI's scheme and the last @ before its query, and before it where that holds one."""
    rest = uri.partition("://")[2]
    if rest.startswith("/"):
        return ""
    before_query = re.split(r"[?#]", rest, maxsplit=1)[0]
    return (before_query if "@" in before_query else rest).rpartition("@")[0]


def _query(uri: str) -> list[str]:
    return re.split(r"[?#&]", uri)[1:]


def _quoted_wholly(text: str) -> str:
    return quote(text, safe="")


def _escaped(text: str) -> str:
    return repr(text)[1:-1]
