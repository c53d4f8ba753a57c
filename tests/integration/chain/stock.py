"""The third: Django under gunicorn."""

from __future__ import annotations

import json
import os
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from meshlib import Mesh
from tests.integration.chain import witness

mesh = Mesh.from_dict(json.loads(os.environ["CHAIN_MESH"]))
depot = mesh.client("depot")

settings.configure(
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=["meshlib.server.django.MeshMiddleware"],
    MESHLIB_MESH=mesh,
    ROOT_URLCONF=__name__,
    SECRET_KEY="of a test",
)


def levels(request: HttpRequest) -> JsonResponse:
    run = {"x-test-run": request.headers.get("x-test-run", "")}
    counted = depot.request(request.method or "GET", "/count", headers=run, params=request.GET.dict())
    counted.raise_for_status()
    return JsonResponse({"stock": counted.json()})


def last_known(request: HttpRequest) -> JsonResponse:
    return JsonResponse({"stock": "as of yesterday"})


urlpatterns: list[Any] = [path("levels", levels), path("last-known", last_known)]
application = witness.wsgi(get_wsgi_application())
