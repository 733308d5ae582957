"""Route templates of FastAPI, Starlette and everything else, read from the scope that the router left."""

import logging
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles

from drive_asgi import call, counted, scope_of
from redserve.middleware import REDMiddleware
from redserve.routes import RouteTemplates


async def answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse("here")


async def other_answer(request: Request) -> PlainTextResponse:
    return PlainTextResponse("there")


async def opaque(scope: Any, receive: Any, send: Any) -> None:
    await PlainTextResponse("opaque")(scope, receive, send)


class HexConvertor(Convertor[int]):
    regex = "0x[0-9a-f]+"

    def convert(self, value: str) -> int:
        return int(value, 16)

    def to_string(self, value: int) -> str:
        return hex(value)


class CopyScope:
    """What some middleware do: the router then writes into another dict than ours."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(dict(scope), receive, send)


class Refuse:
    """Answers 401 before any routing."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await PlainTextResponse("who are you", 401)(scope, receive, send)


def starlette_app(**settings: Any) -> Starlette:
    register_url_convertor("hex", HexConvertor())
    shared = Starlette(routes=[Route("/", answer), Route("/m/{i:int}", answer), Route("/n/{name}", other_answer)])
    return Starlette(
        routes=[
            Route("/", answer),
            Route("/items/{item_id}", answer, methods=["GET"]),
            Route("/items/{key}", answer, methods=["PUT"]),
            Route("/slash/{item_id}/", answer),
            Route("/path/{rest:path}", answer),
            Route("/float/{value:float}", answer),
            Route("/uuid/{value:uuid}", answer),
            Route("/hex/{value:hex}", answer),
            Route("/dots.and+more/{x}", answer),
            WebSocketRoute("/ws/{room}", answer),
            Mount("/sub", app=shared),
            Mount("/again", app=shared),
            Mount("/tenants/{tenant}", routes=[Route("/users/{user}", other_answer)]),
            Mount("/wrapped", app=CopyScope(Starlette(routes=[Route("/w/{i}", answer)]))),
            Mount("/raw", app=opaque),
            Mount("/rooms/{room}/raw", app=opaque),
            Mount("/static", app=StaticFiles(directory="examples")),
            Host("api.test", app=Router(routes=[Route("/hosted/{i}", answer)])),
        ],
        **settings,
    )


def fastapi_app(**settings: Any) -> FastAPI:
    async def handler() -> dict[str, str]:
        return {}

    shared = APIRouter()
    shared.add_api_route("/{item_id}", handler)
    shared.add_route("/plain/{x}", answer)
    nested = APIRouter(prefix="/nested")
    nested.include_router(shared, prefix="/deep/{level}")
    nested.mount("/mounted", app=opaque)
    included_app = APIRouter()
    included_app.mount("/sub", Starlette(routes=[Route("/in/{i}", answer)]))
    sub = FastAPI()
    sub.add_api_route("/m/{i}", handler)
    sub.include_router(shared, prefix="/inner")
    app = FastAPI(**settings)
    app.add_api_route("/direct/{x:path}", handler, methods=["POST"])
    app.add_api_route("/twin-a", handler)
    app.add_api_route("/twin-b", handler)
    app.include_router(shared, prefix="/one")
    app.include_router(shared, prefix="/two")
    app.include_router(nested, prefix="/api")
    app.include_router(included_app, prefix="/v1")
    app.mount("/sub", sub)
    app.mount("/tenants/{tenant}", sub)
    return app


STARLETTE = [
    ("GET", "/", "/"),
    ("GET", "/items/17", "/items/{item_id}"),
    ("HEAD", "/items/17", "/items/{item_id}"),
    ("PUT", "/items/17", "/items/{key}"),
    ("DELETE", "/items/17", "/items/{item_id}"),
    ("GET", "/items/17/", "/items/{item_id}"),
    ("GET", "/slash/17", "/slash/{item_id}/"),
    ("GET", "/path/a/b/c", "/path/{rest}"),
    ("GET", "/float/1.5", "/float/{value}"),
    ("GET", "/uuid/123e4567-e89b-12d3-a456-426614174000", "/uuid/{value}"),
    ("GET", "/hex/0xff", "/hex/{value}"),
    ("GET", "/hex/ff", "_other"),
    ("GET", "/dots.and+more/1", "/dots.and+more/{x}"),
    ("GET", "/dotsXand+more/1", "_other"),
    ("GET", "/ws/lobby", "_other"),
    ("GET", "/sub/", "/sub/"),
    ("GET", "/sub/m/1", "/sub/m/{i}"),
    ("POST", "/sub/m/1", "/sub/m/{i}"),
    ("GET", "/sub/m/1/", "/sub/m/{i}"),
    ("GET", "/sub/m/x", "_other"),
    ("GET", "/sub/nothing", "_other"),
    ("GET", "/again/m/1", "/again/m/{i}"),
    ("GET", "/again/n/x", "/again/n/{name}"),
    ("GET", "/tenants/acme/users/7", "/tenants/{tenant}/users/{user}"),
    ("GET", "/tenants/acme/nothing", "_other"),
    ("GET", "/wrapped/w/1", "/wrapped/w/{i}"),
    ("GET", "/raw/a/b", "/raw"),
    ("GET", "/raw/", "/raw"),
    ("GET", "/raw", "/raw"),
    ("GET", "/rooms/lobby/raw/x", "/rooms/{room}/raw"),
    ("GET", "/static/nothing.txt", "/static"),
    ("GET", "/hosted/1", "_other"),
    ("GET", "/nothing/at/all", "_other"),
]

FASTAPI = [
    ("POST", "/direct/a/b", "/direct/{x}"),
    ("GET", "/direct/a/b", "/direct/{x}"),
    ("GET", "/twin-a", "/twin-a"),
    ("GET", "/twin-b", "/twin-b"),
    ("GET", "/one/1", "/one/{item_id}"),
    ("POST", "/one/1", "/one/{item_id}"),
    ("GET", "/two/1", "/two/{item_id}"),
    ("GET", "/two/1/", "/two/{item_id}"),
    ("GET", "/one/plain/1", "/one/plain/{x}"),
    ("GET", "/two/plain/1", "/two/plain/{x}"),
    ("GET", "/api/nested/deep/3/1", "/api/nested/deep/{level}/{item_id}"),
    ("GET", "/api/nested/deep/3/plain/1", "/api/nested/deep/{level}/plain/{x}"),
    ("GET", "/api/mounted/x", "/api/mounted"),
    ("GET", "/v1/sub/in/1", "/v1/sub/in/{i}"),
    ("GET", "/sub/m/1", "/sub/m/{i}"),
    ("GET", "/sub/inner/1", "/sub/inner/{item_id}"),
    ("GET", "/sub/inner/plain/1", "/sub/inner/plain/{x}"),
    ("GET", "/tenants/acme/m/1", "/tenants/{tenant}/m/{i}"),
    ("GET", "/tenants/acme/inner/1", "/tenants/{tenant}/inner/{item_id}"),
    ("GET", "/tenants/acme/inner/plain/1", "/tenants/{tenant}/inner/plain/{x}"),
    ("GET", "/tenants/acme/nothing", "_other"),
    ("GET", "/nothing", "_other"),
]

CASES = [(starlette_app, *case) for case in STARLETTE] + [(fastapi_app, *case) for case in FASTAPI]
in_both_frameworks = pytest.mark.parametrize(
    ("build", "method", "path", "template"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)


async def route_of(app: Any, registry: CollectorRegistry, method: str, path: str, **scope: Any) -> str:
    await call(app, scope=scope_of(path, method, **scope))
    ((route, *_),) = counted(registry)
    return route


@in_both_frameworks
async def test_outside_of_the_application(
    registry: CollectorRegistry, build: Callable[..., Any], method: str, path: str, template: str
) -> None:
    assert await route_of(REDMiddleware(build(), registry=registry), registry, method, path) == template


@in_both_frameworks
async def test_added_to_the_application(
    registry: CollectorRegistry, build: Callable[..., Any], method: str, path: str, template: str
) -> None:
    app = build()
    app.add_middleware(REDMiddleware, registry=registry)

    assert await route_of(app, registry, method, path) == template


@in_both_frameworks
async def test_below_a_root_path(
    registry: CollectorRegistry, build: Callable[..., Any], method: str, path: str, template: str
) -> None:
    app = REDMiddleware(build(), registry=registry)

    assert await route_of(app, registry, method, "/root" + path, root_path="/root") == template


@in_both_frameworks
async def test_beyond_a_middleware_that_copies_the_scope(
    registry: CollectorRegistry, build: Callable[..., Any], method: str, path: str, template: str
) -> None:
    app = build()
    app.add_middleware(CopyScope)
    app.add_middleware(REDMiddleware, registry=registry)

    # The host and a prefix of a mounted application's own are lost with the scope; nothing leaks.
    assert await route_of(app, registry, method, path) in {template, "/hosted/{i}"}


@in_both_frameworks
async def test_answered_before_routing(
    registry: CollectorRegistry, build: Callable[..., Any], method: str, path: str, template: str
) -> None:
    if path.endswith("/") is not template.endswith("/") and template != "/raw":
        template = "_other"  # a redirect that was never made
    app = REDMiddleware(Refuse(build()), registry=registry)

    assert await route_of(app, registry, method, path) in {template, "/hosted/{i}"}


async def test_a_host_has_its_routes_named(registry: CollectorRegistry) -> None:
    app = REDMiddleware(starlette_app(), registry=registry)

    assert await route_of(app, registry, "GET", "/hosted/1", headers=[(b"host", b"api.test")]) == "/hosted/{i}"


@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
async def test_a_fastapi_application_may_know_its_own_root_path(registry: CollectorRegistry) -> None:
    app = REDMiddleware(fastapi_app(root_path="/proxy"), registry=registry)

    assert await route_of(app, registry, "GET", "/tenants/acme/m/1") == "/tenants/{tenant}/m/{i}"


async def test_a_mounted_application_with_its_own_middleware_is_named_in_full(registry: CollectorRegistry) -> None:
    sub = Starlette(routes=[Route("/m/{i}", answer)], middleware=[Middleware(REDMiddleware, registry=registry)])
    app = Starlette(routes=[Mount("/tenants/{tenant}", app=sub)])

    assert await route_of(app, registry, "GET", "/tenants/acme/m/1") == "/tenants/{tenant}/m/{i}"


async def test_a_fastapi_application_mounted_in_starlette_is_named_in_full(registry: CollectorRegistry) -> None:
    app = REDMiddleware(Starlette(routes=[Mount("/outer/{o}", app=fastapi_app())]), registry=registry)

    assert await route_of(app, registry, "GET", "/outer/x/tenants/acme/inner/1") == (
        "/outer/{o}/tenants/{tenant}/inner/{item_id}"
    )


async def test_a_route_added_later_is_found(registry: CollectorRegistry) -> None:
    app = fastapi_app()
    watched = REDMiddleware(app, registry=registry)
    await call(watched, "/sub/m/1")
    app.add_route("/later/{i}", other_answer)

    await call(watched, "/later/1")

    assert {route for route, *_ in counted(registry)} == {"/sub/m/{i}", "/later/{i}"}


async def test_an_application_without_routes_is_other(registry: CollectorRegistry) -> None:
    assert await route_of(REDMiddleware(opaque, registry=registry), registry, "GET", "/a") == "_other"


class CountedRouter:
    """A router whose `routes` are counted when they are read."""

    def __init__(self, routes: list[Any]) -> None:
        self._routes = routes
        self.walks = 0

    @property
    def routes(self) -> list[Any]:
        self.walks += 1
        return self._routes


def test_routes_are_walked_once_for_any_number_of_requests() -> None:
    routes = [Route("/a/{i}", answer), Route("/b", other_answer)]
    router = CountedRouter(routes)
    templates = RouteTemplates()

    for _ in range(1000):
        for route, template in zip(routes, ["/a/{i}", "/b"], strict=True):
            scope = scope_of("/a/1", router=router, route=route, endpoint=route.endpoint)
            assert templates.template_of(scope, 200) == template
        assert templates.template_of(scope_of("/nothing", router=router), 404) == "_other"
        assert templates.template_of(scope_of("/a/1/", router=router), 307) == "/a/{i}"

    assert router.walks == 1


async def test_routes_are_walked_when_the_application_has_started_and_not_by_the_first_request(
    registry: CollectorRegistry,
) -> None:
    router = CountedRouter([])

    class App:
        def __init__(self) -> None:
            self.router, self.routes = router, router._routes

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                router._routes = [Route("/a/{i}", answer)]  # made while it starts
                await send({"type": "lifespan.startup.complete"})
            else:
                await Refuse(None)(scope, receive, send)

    app = REDMiddleware(App(), registry=registry)
    await call(app, scope={"type": "lifespan"})
    assert router.walks == 1

    assert await route_of(app, registry, "GET", "/a/1") == "/a/{i}"
    assert router.walks == 1


async def test_an_application_whose_routes_cannot_be_asked_for_is_served(registry: CollectorRegistry) -> None:
    class App:
        @property
        def routes(self) -> list[Any]:
            raise LookupError("on purpose")

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await opaque(scope, receive, send)

    assert await route_of(REDMiddleware(App(), registry=registry), registry, "GET", "/a") == "_other"


def test_routes_are_walked_ever_more_rarely_when_endpoints_are_new_each_time() -> None:
    route = Route("/a/{i}", answer)
    router = CountedRouter([route])
    templates = RouteTemplates()

    for _ in range(1000):
        scope = scope_of("/a/1", router=router, endpoint=partial(answer))
        assert templates.template_of(scope, 200) == "/a/{i}"

    assert router.walks <= 11


def test_more_routes_than_the_bound_are_other() -> None:
    routes = [Route(f"/{number}", partial(answer)) for number in range(600)]
    router = CountedRouter(routes)
    templates = RouteTemplates()

    named = {
        templates.template_of(scope_of(route.path, router=router, endpoint=route.endpoint), 200) for route in routes
    }

    assert len(named) == 501
    assert "_other" in named


def test_an_app_that_is_mounted_into_itself_is_walked_to_an_end() -> None:
    router = Router(routes=[Route("/a", answer)])
    router.mount("/again", router)

    scope = scope_of("/again/again/a")

    assert RouteTemplates(router).template_of(scope, 401) == "/again/again/a"


def test_routes_that_cannot_be_read_are_other_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Unreadable:
        @property
        def path(self) -> str:
            raise LookupError("on purpose")

    router = CountedRouter([Unreadable()])
    templates = RouteTemplates()

    with caplog.at_level(logging.WARNING):
        for _ in range(100):
            assert templates.template_of(scope_of("/a", router=router), 200) == "_other"

    assert [(record.name, record.levelname) for record in caplog.records] == [("redserve.routes", "WARNING")]
    assert router.walks == 1


def test_no_template_ever_holds_a_value() -> None:
    templates = {template for *_, template in STARLETTE + FASTAPI}

    assert not [template for template in templates if re.search(r"17|acme|lobby", template)]
