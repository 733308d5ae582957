"""Which templates a router can answer with: one walk over it, through mounts and included routers.

    router ─ walk ─> each route, endpoint and mounted application ─> the templates it can stand for
                     all templates in the order of matching       ─> for a path that no object is known of

Walked again when an unknown object shows up, but ever more rarely while that finds nothing: at the 1st, 2nd, 4th,
8th... such request. Neither Starlette nor FastAPI is imported: their routes are told apart by what they carry.
"""

import logging
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from redserve.metrics.labels import OTHER

logger = logging.getLogger("redserve.routes")

_MAX_TEMPLATES = 500
_MAX_DEPTH = 16  # mounts in mounts, and apps wrapped in apps
_PARAMETER = re.compile(r"{([a-zA-Z_]\w*)(?::[a-zA-Z_]\w*)?}")


class RouteTable:
    """Which templates each route, endpoint and mounted application of one router can stand for.

    Args:
        router: Anything with `routes`; held, as is each object in the table.
    """

    def __init__(self, router: object) -> None:
        self._router = router
        self._misses = 0
        self.walk()

    def walk(self) -> None:
        """Read the whole router anew; what cannot be read is logged, and its requests are `_other`."""
        self.templates: tuple[Template, ...] = ()
        self._owners: dict[object, _Owner] = {}
        self._texts: set[str] = set()
        try:
            self.templates = tuple(self._add(_routes_of(self._router), _Prefix("", ""), depth=0))
        except Exception:
            logger.warning("routes cannot be read, requests are counted as %s", OTHER, exc_info=True)

    def knows(self, chosen: object) -> bool:
        """Whether the last walk met this object."""
        return _key(chosen) in self._owners

    def walk_for_unknown(self, chosen: Sequence[object]) -> bool:
        """Walk again for objects not met so far, if it is their turn; return whether it was.

        Each fruitless walk doubles the number of requests until the next: an application that makes
        a new endpoint object for every request costs the logarithm of its requests, not each of them.
        """
        self._misses += 1
        if self._misses & (self._misses - 1):
            return False
        self.walk()
        if all(self.knows(one) for one in chosen):
            self._misses = 0
        return True

    def resolve(self, chosen: Sequence[object]) -> "str | tuple[Template, ...]":
        """Return the one template that all `chosen` objects agree on, else the candidates for the path."""
        owners = [owner for owner in (self._owners.get(_key(one)) for one in chosen) if owner is not None]
        if not owners:
            return self.templates
        common = [one for one in owners[0].templates if all(one in owner.templates for owner in owners[1:])]
        texts = {template.text for template in common}
        if len(texts) == 1 and any(owner.is_leaf for owner in owners):
            return texts.pop()
        return tuple(common)

    def _add(self, routes: Iterable[Any], prefix: "_Prefix", *, depth: int) -> "list[Template]":
        """Enter `routes` and what is mounted below them; return their templates, in the order of matching."""
        added: list[Template] = []
        for context in _flattened(routes):
            original = getattr(context, "original_route", context)
            route = getattr(context, "starlette_route", None) or context
            path = getattr(route, "path", None)
            app = getattr(route, "app", None)
            endpoint = getattr(route, "endpoint", None)
            if endpoint is not None and path is not None:
                if not hasattr(original, "methods"):
                    continue  # a websocket
                below = self._leaf(prefix.join(path, route), methods=route.methods)
                is_leaf = True
            elif app is not None:
                inner = prefix if path is None else prefix.join(path, route)  # a Host has no path of its own
                routes_below = _routes_of(route) or _routes_of(router_in(app))
                is_leaf = not routes_below or depth == _MAX_DEPTH
                if is_leaf:  # a mounted application that has no routes: one template for whatever is below
                    below = self._leaf(inner._replace(regex=inner.regex + "(?:/.*)?"), methods=None)
                else:
                    below = self._add(routes_below, inner, depth=depth + 1)
            else:
                continue
            for key in (original, endpoint or app, (id(original), getattr(route, "path_format", None))):
                self._own(key, below, is_leaf)
            added += below
        return added

    def _leaf(self, path: "_Prefix", *, methods: Iterable[str] | None) -> "list[Template]":
        text = path.text or "/"
        if text not in self._texts and len(self._texts) >= _MAX_TEMPLATES:
            return []
        self._texts.add(text)
        return [Template(text, path.regex, None if methods is None else frozenset(methods))]

    def _own(self, thing: object, templates: "list[Template]", is_leaf: bool) -> None:
        owner = self._owners.setdefault(_key(thing), _Owner(thing, [], is_leaf))
        owner.templates.extend(template for template in templates if template not in owner.templates)


class Template:
    """One template, and which requests it fits."""

    __slots__ = ("_pattern", "_regex", "methods", "text")

    def __init__(self, text: str, regex: str, methods: frozenset[str] | None) -> None:
        self.text = text
        self.methods = methods
        self._regex = regex
        self._pattern: re.Pattern[str] | None = None

    def fits(self, path: str) -> bool:
        if self._pattern is None:  # at first use: most templates are never matched by path, and compiling is slow
            self._pattern = re.compile(self._regex)
        return self._pattern.fullmatch(path) is not None


def first_fit(templates: Sequence[Template], path: str, method: str) -> str | None:
    """Choose as Starlette does: the first that fits path and method, else the first that fits the path (a 405)."""
    partial: str | None = None
    for template in templates:
        if not template.fits(path):
            continue
        if template.methods is None or method in template.methods:
            return template.text
        partial = partial or template.text
    return partial


class _Owner(NamedTuple):
    thing: object  # held, so that its id stays its own
    templates: list[Template]
    is_leaf: bool  # False: an application whose own router decides further


class _Prefix(NamedTuple):
    """The path so far: as a template, and as a regular expression."""

    text: str
    regex: str

    def join(self, path: str, route: Any) -> "_Prefix":
        """Append the path of `route`; `{p:path}` becomes `{p}` in the text and its convertor's pattern in the regex."""
        convertors = getattr(route, "param_convertors", None) or {}
        text, regex, end = self.text, self.regex, 0
        for parameter in _PARAMETER.finditer(path):
            before, name = path[end : parameter.start()], parameter[1]
            text += f"{before}{{{name}}}"
            regex += f"{re.escape(before)}(?:{getattr(convertors.get(name), 'regex', '[^/]+')})"
            end = parameter.end()
        return _Prefix(text + path[end:], regex + re.escape(path[end:]))


def _flattened(routes: Iterable[Any]) -> Iterable[Any]:
    """Replace FastAPI's included routers by the routes in them, with their prefixes.

    FastAPI keeps them whole since 0.137, and tells what is in them since 0.138: in 0.137 such routes are `_other`.
    """
    contexts = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", None)
    return routes if contexts is None else contexts(routes)


def context_key(context: Any) -> object:
    """Name FastAPI's choice by what its public iteration tells, too: the route as written, and its path as included."""
    if context is None:
        return None
    effective = getattr(context, "starlette_route", None) or context
    return id(getattr(context, "original_route", None)), getattr(effective, "path_format", None)


def _key(thing: object) -> object:
    return thing if type(thing) is tuple else id(thing)


def _routes_of(router: object) -> list[Any]:
    routes = getattr(router, "routes", None)
    return list(routes) if isinstance(routes, Sequence) else []  # an application's may be anything


def router_in(app: Any) -> object:
    """Look through applications and middleware (`.app`) for the router within."""
    for _ in range(_MAX_DEPTH):
        if isinstance(getattr(app, "routes", None), list):
            return getattr(app, "router", app)
        app = getattr(app, "app", None)
    return None
