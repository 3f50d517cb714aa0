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
from tunix_rt.serving.guard import HEADERS, Guard, is_authorised
from tunix_rt.serving.model import ServedModel
from tunix_rt.serving.requests import ChatRequest, CompletionRequest
from tunix_rt.serving.scheduler import close_all
from tunix_rt.serving.ticket import ClientDisconnected

SHARED = ("base.css", "text.js")
"""Static files of report.html that the chat page uses too."""
OWN = ("chat.css", "chat.js", "answer.js")
"""Static files of the chat page alone."""
MEDIA_TYPES = {"css": "text/css", "js": "text/javascript", "html": "text/html"}
"""The media type of a static file by the ending of its name."""
NO_OBJECT = {
    "json_invalid": "no valid JSON",
    "model_attributes_type": "no JSON object with the header Content-Type: application/json",
}
"""What is wrong with a body of which nothing can be read, by the kind of error of pydantic."""
CLIENT_CLOSED_REQUEST = 499
"""The status that nginx logs where a client closed its connection; nobody receives it."""


def application(models: Sequence[ServedModel], token: str | None) -> FastAPI:
    """The application of one or more models. `token`: what a client must know; None: nothing."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await close_all([model.scheduler for model in models])

    app = FastAPI(title="tunix_rt", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, token=token)
    _add_errors(app)
    _add_pages(app)
    _add_models(app, models)
    _add_health(app, models, token)

    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatRequest, request: Request) -> Response:
        return await chat(_find(models, body.model), body).respond(request, bool(body.stream))

    @app.post("/v1/completions")
    async def completions(body: CompletionRequest, request: Request) -> Response:
        exchange = await complete(_find(models, body.model), body, request.is_disconnected)
        return await exchange.respond(request, bool(body.stream))

    return app


def _find(models: Sequence[ServedModel], name: str) -> ServedModel:
    """The model of this name, or the only one of an experiment of this name. Raises ApiError."""
    found = [model for model in models if name in (model.name, model.name.partition("/")[0])]
    if len(found) != 1:
        served = ", ".join(model.name for model in models)
        raise ApiError(404, f"no model {name[:200]!r} here; served: {served}", "model", "model_not_found")
    return found[0]


def _add_models(app: FastAPI, models: Sequence[ServedModel]) -> None:
    @app.get("/v1/models")
    async def list_models() -> JsonObject:
        return {"object": "list", "data": [model.to_json() for model in models]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> JsonObject:
        return _find(models, name).to_json()


def _add_health(app: FastAPI, models: Sequence[ServedModel], token: str | None) -> None:
    """Whether every model answers, for anybody; what they do, for who knows the token."""

    @app.get("/health")
    async def health(request: Request) -> Response:
        failed = any(model.scheduler.is_closed for model in models)
        report: JsonObject = {"status": "failed" if failed else "ok"}
        if is_authorised(request.headers, token):
            report["rows"] = {
                model.name: {"active": model.scheduler.num_active, "waiting": model.scheduler.num_waiting}
                for model in models
            }
        return JSONResponse(report, 503 if failed else 200)


def _add_pages(app: FastAPI) -> None:
    @app.get("/")
    async def page() -> Response:
        return _static("chat.html")

    @app.get("/static/{name}")
    async def static(name: str) -> Response:
        if name not in OWN + SHARED:
            raise ApiError(404, f"no file {name[:80]!r}")
        return _static(name)


def _static(name: str) -> Response:
    own = files(__package__).joinpath("static", name)
    text = embed.static(name) if name in SHARED else own.read_text("utf-8")
    return Response(text, media_type=MEDIA_TYPES[name.rpartition(".")[2]], headers={"Cache-Control": "no-cache"})


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(ApiError)
    async def known(_: Request, error: ApiError) -> Response:
        return JSONResponse(error.to_json(), error.status, error.headers)

    @app.exception_handler(ClientDisconnected)
    async def disconnected(_: Request, __: ClientDisconnected) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, __: Exception) -> Response:
        """Outside of the guard, hence with its headers."""
        error = ApiError(500, "the server failed: its terminal says why")
        return JSONResponse(error.to_json(), error.status, HEADERS)

    @app.exception_handler(RequestValidationError)
    async def wrong(request: Request, error: RequestValidationError) -> Response:
        first = max(error.errors(), key=lambda one: len(one["loc"]))  # of several readings the one that came furthest
        if first["type"] in NO_OBJECT:
            return await known(request, ApiError(400, f"body: {NO_OBJECT[first['type']]}"))
        path = [str(part) for part in first["loc"] if part != "body"]
        return await known(
            request, ApiError(400, f"{'.'.join(path) or 'body'}: {first['msg']}", path[0] if path else None)
        )

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        return await known(request, ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}"))
