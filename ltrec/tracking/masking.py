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
    for uri in (value for name, value in os.environ.items() if _URIS.match(name)):
        infos = _user_infos(uri)
        pairs |= {info for info in infos if ":" in info}
        known |= {info.partition(":")[2] for info in infos}
        known |= _query_values(uri)
    forms = {form(each) for each in known | pairs for form in (str, unquote, unquote_plus)}
    forms |= {form(each) for each in forms for form in (quote, quote_plus, _quoted_wholly, _escaped)}
    forms |= {base64.b64encode(unquote(pair).encode()).decode() for pair in pairs}
    return forms - {""}


def _user_infos(uri: str) -> set[str]:
    """Return what may be a URI's user info: that ends with an @, and a password may hold each of @, /, ? and #."""
    rest = uri.partition("://")[2]
    address = re.split(r"[?#]", rest, maxsplit=1)[0]
    is_host = "@" not in address and re.fullmatch(r"[^:]*(:\d*)?(/.*)?", address)
    if rest.startswith("/") or (is_host and "=" in rest.partition("@")[0]):  # no address, or @ only in a query
        return set()
    return {rest[: found.start()] for found in re.finditer("@", rest)}


def _query_values(uri: str) -> set[str]:
    """Return the values of a query or a fragment, each up to the next one's name and up to the end."""
    query = "".join(re.split(r"([?#])", uri, maxsplit=1)[2:])
    values = {query[found.end() :] for found in re.finditer("=", query)}
    return values | {value.partition("&")[0] for value in values}


def _quoted_wholly(text: str) -> str:
    return quote(text, safe="")


def _escaped(text: str) -> str:
    return repr(text)[1:-1]
