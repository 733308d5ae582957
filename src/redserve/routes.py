"""The route template of a request (`/items/{item_id}`, never `/items/17`), bounded in number.

The router does its work first and leaves in the scope what it chose; we read that afterwards, from the same dict:

    scope: FastAPI's route context, route, endpoint ── seen before ──> template             three look-ups a request
                                                   └── new ──> RouteTable: who owns which templates   once a route
    answered before routing, redirected, or on a copied scope ──> the path, matched against the templates

`RouteTable` is one walk over the router, through mounts and included routers. It is walked again when an unknown
object shows up, but ever more rarely while that finds nothing: at the 1st, 2nd, 4th, 8th... such request.
Neither Starlette nor FastAPI is imported: their routes are told apart by what they carry.
"""

import logging
import re
import sys
from collections.abc import Iterable, MutableMapping, Sequence
from typing import Any, NamedTuple

from redserve.metrics.labels import OTHER

logger = logging.getLogger("redserve.routes")

Scope = MutableMapping[str, Any]

_MAX_TEMPLATES = 500
_MAX_SEEN = 4096  # (context, route, endpoint) triples; an app has one or two per route
_MAX_ROUTERS = 64
_MAX_DEPTH = 16  # mounts in mounts, and apps wrapped in apps
_PARAMETER = re.compile(r"{([a-zA-Z_]\w*)(?::[a-zA-Z_]\w*)?}")


class RouteTemplates:
    """Names the route of each request of one application.

    Args:
        app: The application that is observed; where its router is found when a scope does not say.
    """

    def __init__(self, app: object = None) -> None:
        self._router = _router_in(app)
        self._seen: dict[tuple[int, int, int], str | tuple[_Template, ...]] = {}
        self._held: list[tuple[object, ...]] = []  # whose ids are in _seen, so that no other object gets them
        self._tables: dict[int, RouteTable] = {}
        self._has_failed = False

    def template_of(self, scope: Scope, status: int) -> str:
        """Return the template that answered, or `_other`. Call it after the router ran, with the same scope.

        Never raises: a router that cannot be read is logged once and its requests are `_other`.

        Args:
            scope: The request's scope, as the application left it.
            status: The status that is about to be sent; a redirect is looked up where it leads.
        """
        try:
            fastapi = scope.get("fastapi")
            context = None if fastapi is None else fastapi.get("effective_route_context")
            route = scope.get("route")
            endpoint = scope.get("endpoint")
            found = self._seen.get((id(context), id(route), id(endpoint)))
            if found is None:
                found = self._resolve(scope, context, route, endpoint)
            return found if found.__class__ is str else _match(found, scope, status)  # type: ignore[arg-type]
        except Exception:
            if not self._has_failed:
                self._has_failed = True
                logger.warning("routes cannot be read, requests are counted as %s", OTHER, exc_info=True)
            return OTHER

    def _resolve(self, scope: Scope, context: Any, route: object, endpoint: object) -> "str | tuple[_Template, ...]":
        """Return the template, or the ones to match the path against; remember what is certain."""
        table = self._table(scope.get("router", self._router))
        if table is None:
            return OTHER
        if context is None and route is None and endpoint is None:
            # A router that ran and chose nothing answers 404 or redirects; one that did not run tells us nothing.
            return table.templates
        chosen = [key for key in (_context_key(context), route, endpoint) if key is not None]
        is_known = all(table.knows(key) for key in chosen)
        has_walked = not is_known and table.walk_for_unknown(chosen)
        if has_walked or len(self._seen) >= _MAX_SEEN:
            self._seen.clear()
            self._held.clear()
        found = table.resolve(chosen)
        if is_known or has_walked:
            self._seen[id(context), id(route), id(endpoint)] = found
            self._held.append((context, route, endpoint))
        return found

    def _table(self, router: object) -> "RouteTable | None":
        table = self._tables.get(id(router))
        if table is None and router is not None and len(self._tables) < _MAX_ROUTERS:
            table = self._tables[id(router)] = RouteTable(router)
        return table


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
        self.templates: tuple[_Template, ...] = ()
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

    def resolve(self, chosen: Sequence[object]) -> "str | tuple[_Template, ...]":
        """Return the one template that all `chosen` objects agree on, else the candidates for the path."""
        owners = [owner for owner in (self._owners.get(_key(one)) for one in chosen) if owner is not None]
        if not owners:
            return self.templates
        common = [one for one in owners[0].templates if all(one in owner.templates for owner in owners[1:])]
        texts = {template.text for template in common}
        if len(texts) == 1 and any(owner.is_leaf for owner in owners):
            return texts.pop()
        return tuple(common)

    def _add(self, routes: Iterable[Any], prefix: "_Prefix", *, depth: int) -> "list[_Template]":
        """Enter `routes` and what is mounted below them; return their templates, in the order of matching."""
        added: list[_Template] = []
        for route in _flattened(routes):
            path = getattr(route, "path", None)
            app = getattr(route, "app", None)
            endpoint = getattr(route, "endpoint", None)
            original = getattr(route, "original_route", route)
            if endpoint is not None and path is not None:
                if not hasattr(original, "methods"):
                    continue  # a websocket
                below = self._leaf(prefix.join(path, route), methods=route.methods)
                is_leaf = True
            elif app is not None:
                inner = prefix if path is None else prefix.join(path, route)  # a Host has no path of its own
                routes_below = _routes_of(route) or _routes_of(_router_in(app))
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

    def _leaf(self, path: "_Prefix", *, methods: Iterable[str] | None) -> "list[_Template]":
        text = path.text or "/"
        if text not in self._texts and len(self._texts) >= _MAX_TEMPLATES:
            return []
        self._texts.add(text)
        return [_Template(text, path.regex, None if methods is None else frozenset(methods))]

    def _own(self, thing: object, templates: "list[_Template]", is_leaf: bool) -> None:
        owner = self._owners.setdefault(_key(thing), _Owner(thing, [], is_leaf))
        owner.templates.extend(template for template in templates if template not in owner.templates)


class _Template:
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


class _Owner(NamedTuple):
    thing: object  # held, so that its id stays its own
    templates: list[_Template]
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


def path_below(root_path: str, path: str) -> str:
    """Return `path` as the router sees it: without the `root_path` that the application is served under."""
    if root_path and path.startswith(root_path) and path[len(root_path) :][:1] in ("", "/"):
        return path[len(root_path) :]
    return path


def _match(templates: Sequence[_Template], scope: Scope, status: int) -> str:
    """Return the template that the request's path would have been routed to."""
    if status == 404 and "router" in scope and "endpoint" not in scope:
        return OTHER  # the router itself has said so
    # Mounts lengthen `root_path`; Starlette keeps the server's one as `app_root_path`.
    path = path_below(scope.get("app_root_path", scope.get("root_path", "")), scope["path"])
    found = _first(templates, path, scope["method"])
    if found is None and 300 <= status < 400:
        found = _first(templates, path.rstrip("/") if path.endswith("/") else path + "/", scope["method"])
    return OTHER if found is None else found


def _first(templates: Sequence[_Template], path: str, method: str) -> str | None:
    """Choose as Starlette does: the first that fits path and method, else the first that fits the path (a 405)."""
    partial: str | None = None
    for template in templates:
        if not template.fits(path):
            continue
        if template.methods is None or method in template.methods:
            return template.text
        partial = partial or template.text
    return partial


def _flattened(routes: Iterable[Any]) -> Iterable[Any]:
    """Replace FastAPI's included routers by the routes in them, with their prefixes (FastAPI >= 0.139)."""
    contexts = getattr(sys.modules.get("fastapi.routing"), "iter_route_contexts", None)
    return routes if contexts is None else contexts(routes)


def _context_key(context: Any) -> object:
    """Name FastAPI's choice by what its public iteration tells, too: the route as written, and its path as included."""
    if context is None:
        return None
    effective = getattr(context, "starlette_route", None) or context
    return id(getattr(context, "original_route", None)), getattr(effective, "path_format", None)


def _key(thing: object) -> object:
    return thing if type(thing) is tuple else id(thing)


def _routes_of(router: object) -> list[Any]:
    return getattr(router, "routes", None) or []


def _router_in(app: Any) -> object:
    """Look through applications and middleware (`.app`) for the router within."""
    for _ in range(_MAX_DEPTH):
        if isinstance(getattr(app, "routes", None), list):
            return getattr(app, "router", app)
        app = getattr(app, "app", None)
    return None
