"""The HTTP application: routes, and errors in OpenAI's shape."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from tunix_rt.files import JsonObject
from tunix_rt.report.html import embed
from tunix_rt.serving.chat import chat
from tunix_rt.serving.completions import complete
from tunix_rt.serving.errors import ApiError
from tunix_rt.serving.guard import Guard
from tunix_rt.serving.model import Model
from tunix_rt.serving.requests import ChatRequest, CompletionRequest

OF_REPORT = ("base.css", "text.js")
"""What the chat page has in common with report.html."""
OWN = ("chat.css", "chat.js", "answer.js")
KINDS = {"css": "text/css", "js": "text/javascript", "html": "text/html"}


def application(models: Sequence[Model], token: str | None) -> FastAPI:
    """The application of one or more models. `token`: what a client must know; None: nothing."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for model in models:
            model.scheduler.close()

    app = FastAPI(title="tunix_rt", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, token=token)
    _add_errors(app)
    _add_pages(app)
    _add_models(app, models)

    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        return await chat(_find(models, body.model), body).respond(request, bool(body.stream))

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        return await (await complete(_find(models, body.model), body)).respond(request, bool(body.stream))

    return app


def _find(models: Sequence[Model], name: str) -> Model:
    """The model of this name, or the only one of an experiment of this name. Raises ApiError."""
    found = [model for model in models if name in (model.name, model.name.partition("/")[0])]
    if len(found) != 1:
        served = ", ".join(model.name for model in models)
        raise ApiError(404, f"no model {name[:200]!r} here; served: {served}", "model", "model_not_found")
    return found[0]


def _add_models(app: FastAPI, models: Sequence[Model]) -> None:
    @app.get("/v1/models")
    async def list_models() -> JsonObject:
        return {"object": "list", "data": [model.to_json() for model in models]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> JsonObject:
        return _find(models, name).to_json()

    @app.get("/health")
    async def health() -> JsonObject:
        load = {model.name: model.scheduler for model in models}
        rows = {name: {"active": one.num_active, "waiting": one.num_waiting} for name, one in load.items()}
        return {"status": "ok", "rows": rows}


def _add_pages(app: FastAPI) -> None:
    @app.get("/")
    async def page() -> Response:
        return _static("chat.html")

    @app.get("/static/{name}")
    async def static(name: str) -> Response:
        if name not in OWN + OF_REPORT:
            raise ApiError(404, f"no file {name[:80]!r}")
        return _static(name)


def _static(name: str) -> Response:
    own = files(__package__).joinpath("static", name)
    text = embed.static(name) if name in OF_REPORT else own.read_text("utf-8")
    return Response(text, media_type=KINDS[name.rpartition(".")[2]], headers={"Cache-Control": "no-cache"})


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def known(_: Request, error: ApiError) -> Response:
        return JSONResponse(error.to_json(), error.status, error.headers)

    @app.exception_handler(RequestValidationError)
    async def wrong(request: Request, error: RequestValidationError) -> Response:
        first = max(error.errors(), key=lambda one: len(one["loc"]))  # of several readings the one that came furthest
        path = [str(part) for part in first["loc"] if part != "body"]
        return await known(
            request, ApiError(400, f"{'.'.join(path) or 'body'}: {first['msg']}", path[0] if path else None)
        )

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        return await known(request, ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))
