"""One call for code that is already there: clients and sessions that exist make their calls through the mesh."""

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import aiohttp
import httpx
import httpx2
import requests

import meshlib


class Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.send_header("x-attempt", self.headers.get("x-envoy-attempt-count", "not by the mesh"))
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"127.0.0.1:{server.server_port}"
URLS = ("http://orders.internal:8080/", f"http://{address}/")

# The name by which the code calls the service, and where it is.
services = {"orders": {"hosts": ["orders.internal:8080"], "endpoints": [address]}}

with meshlib.Mesh(discovery=[], services=services) as mesh:
    with mesh.attach(httpx.Client()) as client:
        print("httpx:", [client.get(url).headers["x-attempt"] for url in URLS])

    with mesh.attach(httpx2.Client()) as client2:
        print("httpx2:", [client2.get(url).headers["x-attempt"] for url in URLS])

    with mesh.attach(requests.Session()) as session:
        print("requests:", [session.get(url).headers["x-attempt"] for url in URLS])

    async def by_aiohttp() -> None:
        async with mesh.attach(aiohttp.ClientSession()) as session:
            print("aiohttp:", [(await session.get(url)).headers["x-attempt"] for url in URLS])

    asyncio.run(by_aiohttp())

server.shutdown()
server.server_close()
