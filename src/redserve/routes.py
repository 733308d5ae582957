"""The route template of a request (`/items/{item_id}`, never `/items/17`), bounded in number.

The router does its work first and leaves in the scope what it chose; we read that afterwards, from the same dict:

    scope: FastAPI's route context, route, endpoint ── seen before ──> template              one look-up a request
                                                   └── new ──> RouteTable: who owns which templates   once a route
    answered before routing, redirected, or on a copied scope ──> the path, matched against the templates
"""

import logging
from collections.abc import MutableMapping, Sequence
from typing import Any

from redserve.metrics.labels import OTHER
from redserve.route_table import RouteTable, Template, context_key, first_fit, router_in

logger = logging.getLogger("redserve.routes")

Scope = MutableMapping[str, Any]

_MAX_SEEN = 4096  # objects that a router chose; an app has one or two per route
_MAX_ROUTERS = 64


_Seen = tuple[object, object, object, str | tuple[Template, ...]]
"""Endpoint, route and context that a router left in a scope (held, so that ids stay their own), and what they mean."""

_UNSEEN: _Seen = (object(), None, None, OTHER)


class RouteTemplates:
    """Names the route of each request of one application.

    Args:
        app: The application that is observed; where its router is found when a scope does not say.
    """

    def __init__(self, app: object = None) -> None:
        self._router: object = None
        self._seen: dict[int, _Seen] = {}
        self._tables: dict[int, RouteTable] = {}
        self._has_failed = False
        try:
            self._router = router_in(app)
        except Exception:
            self._failed()

    def prepare(self) -> None:
        """Walk the application's router now: a large one takes longer than a request may."""
        self._table(self._router)

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
            seen_endpoint, seen_route, seen_context, found = self._seen.get(id(context or route or endpoint), _UNSEEN)
            if seen_endpoint is not endpoint or seen_route is not route or seen_context is not context:
                found = self._resolve(scope, context, route, endpoint)
            return found if found.__class__ is str else _match(found, scope, status)  # type: ignore[arg-type]
        except Exception:
            self._failed()
            return OTHER

    def _resolve(self, scope: Scope, context: Any, route: object, endpoint: object) -> str | tuple[Template, ...]:
        """Return the template, or the ones to match the path against; remember what is certain."""
        table = self._table(scope.get("router", self._router))
        if table is None:
            return OTHER
        if context is None and route is None and endpoint is None:
            # A router that ran and chose nothing answers 404 or redirects; one that did not run tells us nothing.
            return table.templates
        chosen = [key for key in (context_key(context), route, endpoint) if key is not None]
        is_known = all(table.knows(key) for key in chosen)
        has_walked = not is_known and table.walk_for_unknown(chosen)
        if has_walked or len(self._seen) >= _MAX_SEEN:
            self._seen.clear()
        found = table.resolve(chosen)
        if is_known or has_walked:
            self._seen[id(context or route or endpoint)] = (endpoint, route, context, found)
        return found

    def _table(self, router: object) -> RouteTable | None:
        table = self._tables.get(id(router))
        if table is None and router is not None and len(self._tables) < _MAX_ROUTERS:
            table = self._tables[id(router)] = RouteTable(router)
        return table

    def _failed(self) -> None:
        if not self._has_failed:
            self._has_failed = True
            logger.warning("routes cannot be read, requests are counted as %s", OTHER, exc_info=True)


def path_below(root_path: str, path: str) -> str:
    """Return `path` as the router sees it: without the `root_path` that the application is served under."""
    if root_path and path.startswith(root_path) and path[len(root_path) :][:1] in ("", "/"):
        return path[len(root_path) :]
    return path


def _match(templates: Sequence[Template], scope: Scope, status: int) -> str:
    """Return the template that the request's path would have been routed to."""
    if status == 404 and "router" in scope and "endpoint" not in scope:
        return OTHER  # the router itself has said so
    # Mounts lengthen `root_path`; Starlette keeps the server's one as `app_root_path`.
    path = path_below(scope.get("app_root_path", scope.get("root_path", "")), scope["path"])
    found = first_fit(templates, path, scope["method"])
    if found is None and 300 <= status < 400:
        found = first_fit(templates, path.rstrip("/") if path.endswith("/") else path + "/", scope["method"])
    return OTHER if found is None else found
