"""Declarative clients: a class whose methods are calls, bound to a service with `meshlib.Mesh.bind`.

operation, markers, pagination   what a user writes
hints, signature                 what that comes to, decided when bound
template, encoding, styles, outgoing
                                 arguments into requests
reading, decoding, paging        answers into values: whole, as streams, page by page
response, errors                 what a method returns besides, and raises
binding                          puts them together
"""

from meshlib.adapters.declarative.decoding import ServerSentEvent
from meshlib.adapters.declarative.errors import InvalidResponse, ResponseError, StatusError
from meshlib.adapters.declarative.markers import Body, Cookie, File, Form, HashKey, Header, Path, Query, Upload
from meshlib.adapters.declarative.operation import delete, get, head, options, patch, post, put, request
from meshlib.adapters.declarative.pagination import ByCursor, ByLink, ByPage, paginated
from meshlib.adapters.declarative.response import Response

__all__ = [
    "Body",
    "ByCursor",
    "ByLink",
    "ByPage",
    "Cookie",
    "File",
    "Form",
    "HashKey",
    "Header",
    "InvalidResponse",
    "Path",
    "Query",
    "Response",
    "ResponseError",
    "ServerSentEvent",
    "StatusError",
    "Upload",
    "delete",
    "get",
    "head",
    "options",
    "paginated",
    "patch",
    "post",
    "put",
    "request",
]
