"""A query of Bing's image search, and the URL and headers that request its result pages."""

import dataclasses
import re
import types
import urllib.parse
from collections.abc import Mapping

from imagesieve.errors import UsageError

PAGE_SIZE = 35  # what the site itself asks for; it may answer with fewer

# Level of SafeSearch -> its value in the cookie. The parameters alone have been ignored before.
SAFE_SEARCH = types.MappingProxyType({"strict": "STRICT", "moderate": "DEMOTE", "off": "OFF"})

_COLORS = "red orange yellow green teal blue purple pink brown black gray white"

# Option -> {name: Bing's word for it}. A size may also be "larger-than:640x480".
FILTERS: Mapping[str, Mapping[str, str]] = types.MappingProxyType(
    {
        "size": {name: f"imagesize-{name}" for name in ("small", "medium", "large", "wallpaper")},
        "color": {
            "color": "color2-color",
            "monochrome": "color2-bw",
            **{name: f"color2-FGcls_{name.upper()}" for name in _COLORS.split()},
        },
        "type": {
            "photo": "photo-photo",
            "clipart": "photo-clipart",
            "line": "photo-linedrawing",
            "gif": "photo-animatedgif",
            "transparent": "photo-transparent",
        },
        "layout": {name: f"aspect-{name}" for name in ("square", "wide", "tall")},
        "people": {name: f"face-{name}" for name in ("face", "portrait")},
        "age": {
            "day": "age-lt1440",  # minutes
            "week": "age-lt10080",
            "month": "age-lt43200",
            "year": "age-lt525600",
        },
        "license": {
            "any": "licenseType-Any",  # any license at all, as opposed to not asking for one
            "public-domain": "license-L1",
            "share": "license-L2_L3_L4_L5_L6_L7",
            "share-commercially": "license-L2_L3_L4",
            "modify": "license-L2_L3_L5_L6",
            "modify-commercially": "license-L2_L3",
        },
    }
)

_PATH = "/images/async"
_LARGER_THAN = re.compile(r"larger-than:([1-9][0-9]{0,4})x([1-9][0-9]{0,4})")
_MARKET = re.compile(r"([a-z]{2,3})-([a-z]{2})", re.IGNORECASE)
_DEFAULT_LANGUAGE = "en-US"


@dataclasses.dataclass(frozen=True)
class SearchOptions:
    """The options of a query besides its words. Empty text leaves the choice to Bing."""

    safe_search: str = "moderate"  # a key of `SAFE_SEARCH`
    market: str = ""  # language and country, such as "de-AT"
    size: str = ""  # as those that follow, a name from `FILTERS`
    color: str = ""
    type: str = ""
    layout: str = ""
    people: str = ""
    age: str = ""
    license: str = ""
    # Bing's own text, such as `+filterui:photo-photo`, plain or percent-encoded; sent last.
    filters: str = ""

    def __post_init__(self) -> None:
        if self.safe_search not in SAFE_SEARCH:
            raise _no_choice("safe-search", self.safe_search, SAFE_SEARCH)
        if self.market and not _MARKET.fullmatch(self.market):
            raise UsageError(
                f"--market {self.market!r} is not a language and a country: write them as in en-US"
            )
        for option in FILTERS:
            _filter_value(option, getattr(self, option))


@dataclasses.dataclass(frozen=True)
class Query:
    text: str
    options: SearchOptions = dataclasses.field(default_factory=SearchOptions)

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise UsageError("The search words are empty: write some words to search for.")
        if "\0" in self.text or self.text != self.text.encode(errors="replace").decode():
            raise UsageError(f"The search words {self.text!a} are not text: write them in UTF-8.")


def page_url(base_url: str, query: Query, first: int) -> str:
    """Return the URL of the result page that starts at item `first`, counted from 1."""
    options = query.options
    parameters = {
        "q": query.text.strip(),
        "first": str(first),
        "count": str(PAGE_SIZE),
        "mmasync": "1",
        "adlt": options.safe_search,
        "safeSearch": options.safe_search.capitalize(),
    }
    if options.market:
        language, country = _market(options.market)
        market = f"{language}-{country}"
        parameters |= {"mkt": market, "setlang": market, "cc": country}
    if filters := _filter_text(options):
        parameters["qft"] = filters
    return f"{base_url.rstrip('/')}{_PATH}?{urllib.parse.urlencode(parameters)}"


def page_headers(query: Query) -> dict[str, str]:
    """Return the headers that Bing expects."""
    language, country = _market(query.options.market or _DEFAULT_LANGUAGE)
    return {
        "Accept": "text/html",
        "Accept-Language": f"{language}-{country},{language};q=0.9",
        "Cookie": f"SRCHHPGUSR=ADLT={SAFE_SEARCH[query.options.safe_search]}",
    }


def _market(text: str) -> tuple[str, str]:
    language, _, country = text.partition("-")
    return language.lower(), country.upper()


def _filter_text(options: SearchOptions) -> str:
    named = (_filter_value(option, getattr(options, option)) for option in FILTERS)
    text = "".join(f"+filterui:{value}" for value in named if value)
    # Copied from a browser's address bar, the raw text may be percent-encoded already.
    raw = urllib.parse.unquote(options.filters).strip()
    return text + (raw if raw.startswith("+") or not raw else f"+{raw}")


def _filter_value(option: str, name: str) -> str:
    if option == "size" and (match := _LARGER_THAN.fullmatch(name)):
        return f"imagesize-custom_{match[1]}_{match[2]}"
    if name and name not in FILTERS[option]:
        raise _no_choice(option, name, FILTERS[option])
    return FILTERS[option][name] if name else ""


def _no_choice(option: str, value: str, choices: Mapping[str, str]) -> UsageError:
    names = [*choices, *(["larger-than:WIDTHxHEIGHT"] if option == "size" else [])]
    return UsageError(f"--{option} {value!r} is not one of: {', '.join(names)}")
