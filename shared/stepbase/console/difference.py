"""What a sync changed, in words: an app's functions before and after; what to do when one fails. Pure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stepbase.console import words

Config = Mapping[str, object]

NONE = "none"
_OF_EVERY_FUNCTION = ("id", "steps")
_LABELS = {
    "rateLimit": "rate limit",
    "batchEvents": "batch",
    "cancel": "cancel on",
    "stepbase": "engine options",
}


@dataclass(frozen=True, slots=True)
class Change:
    """One option: what it was and what it is, in words."""

    option: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Changed:
    """A function that was registered before and after, otherwise."""

    function: str
    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class Difference:
    """What the last sync that changed something changed.

    Attributes:
        is_first: There was none before it.
        app: What changed of the app itself.
    """

    is_first: bool
    app: Sequence[Change] = ()
    added: Sequence[str] = ()
    removed: Sequence[str] = ()
    changed: Sequence[Changed] = ()

    def data(self) -> dict[str, object]:
        """Return it for JSON."""
        return {
            "is_first": self.is_first,
            "app": [_as_data(each) for each in self.app],
            "added": list(self.added),
            "removed": list(self.removed),
            "changed": [
                {"function": each.function, "changes": [_as_data(one) for one in each.changes]}
                for each in self.changed
            ],
        }

    @property
    def summary(self) -> str:
        """Say it in a few words: ``"+2 −1 ~3 functions"`` as people say it."""
        if self.is_first:
            return "first sync"
        counts = ((len(self.added), "added"), (len(self.removed), "removed"),
                  (len(self.changed), "changed"))  # fmt: skip
        said = [f"{count} {word}" for count, word in counts if count]
        said += [f"{each.option} changed" for each in self.app]
        return ", ".join(said) or "nothing changed"


def of_app(row: Mapping[str, object]) -> Difference:
    """Return what the last change of an app was, from its row in `history.catalog.APPS`."""
    previous, current = _read(row.get("previous")), _read(row.get("current"))
    if not previous:
        return Difference(is_first=True, added=sorted(current))
    before = previous.get("functions")
    old = {k: v for k, v in before.items()} if isinstance(before, Mapping) else {}
    both = sorted(set(old) & set(current))
    changed = [
        Changed(slug, changes) for slug in both if (changes := _changes(old[slug], current[slug]))
    ]
    return Difference(
        is_first=False,
        app=[
            Change(word, str(previous.get(key) or NONE), str(row.get(key) or NONE))
            for key, word in (("url", "serve URL"), ("framework", "framework"))
            if (previous.get(key) or "") != (row.get(key) or "")
        ],
        added=sorted(set(current) - set(old)),
        removed=sorted(set(old) - set(current)),
        changed=changed,
    )


def _read(text: object) -> Config:
    value = json.loads(text) if isinstance(text, str) else text
    return value if isinstance(value, Mapping) else {}


def _changes(old: object, new: object) -> list[Change]:
    before, after = _read(old), _read(new)
    return list(_each_change(before, after))


def _each_change(before: Config, after: Config) -> Iterator[Change]:
    retries = words.retries_of(before), words.retries_of(after)
    if retries[0] != retries[1]:
        yield Change("retries", str(retries[0]), str(retries[1]))
    for key in dict.fromkeys([*before, *after]):
        if key not in _OF_EVERY_FUNCTION and before.get(key) != after.get(key):
            yield Change(
                _LABELS.get(key, key), _said(key, before.get(key)), _said(key, after.get(key))
            )


def _said(key: str, value: object) -> str:
    if value in (None, "", [], {}):
        return NONE
    if key == "triggers":
        return "; ".join(words.triggers_in_words({key: value}))
    said = words.options_in_words({key: value})
    if said:
        return "; ".join(said)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _as_data(change: Change) -> dict[str, str]:
    return {"option": change.option, "old": change.old, "new": change.new}


def remedy(code: str | None, url: str) -> str:
    """Say what to do about a sync that failed, by the code that it was noted with."""
    if code in _REMEDIES:
        return _REMEDIES[code].format(url=url)
    if code is not None and code.startswith("http_5"):
        return "The app itself failed: its log says why. Then sync again."
    return "Its own words above say what is wrong. Correct it, deploy, and sync again."


_KEYS = (
    "The app and this engine must have the same INNGEST_SIGNING_KEY (or one as the other's"
    " INNGEST_SIGNING_KEY_FALLBACK), and clocks within five minutes of each other."
)
_REMEDIES = {
    "away": "Nothing answers there. Is the app running, and can this machine reach it? Try curl {url}."
    " If it has moved, have it register from its new address.",
    "sig_verification_failed": _KEYS,
    "header_missing": _KEYS,
    "http_401": _KEYS,
    "http_403": _KEYS,
    "http_404": "No app is served at that path. Compare it with what serve(…) or the host mounts, usually"
    " /api/inngest, and with INNGEST_SERVE_PATH.",
    "http_405": "Something else answers there: a sync is a PUT, which an app's serve URL takes.",
    "server_kind_mismatch": "The app is in dev mode and this engine has keys, or the other way round: set"
    " INNGEST_DEV=1 for an engine without keys, unset it for one with keys.",
    "invalid_function": "A function is declared in a way that does not work: the words above name it and the"
    " option. Correct it there and deploy; until then the functions of the last good sync go on.",
    "invalid_request": "What came is no app's answer. Is that its serve URL, and nothing in between that"
    " answers instead (a login page, a proxy)?",
    "url_invalid": "Set INNGEST_SERVE_ORIGIN (and INNGEST_SERVE_PATH) where the app runs, or sync it from"
    " here: a signed sync tells it its address.",
    "registration_failed": "The app could not reach this engine: set INNGEST_BASE_URL, or INNGEST_DEV to this"
    " engine's URL, where the app runs.",
    "function_config_invalid": "The app has no functions. Is every module that declares one imported before"
    " serve(…)?",
}
