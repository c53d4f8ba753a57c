"""Nobody waits, nothing runs: handlers whose caller went away or whose deadline passed are ended, and counted.

Not a line about it in the handlers.
"""

import asyncio
import socket
import threading
import time

import httpx
import uvicorn
from fastapi import FastAPI

import meshlib
from meshlib import Mesh
from meshlib.server.fastapi import MeshMiddleware

mesh = Mesh(service="reports", discovery=[])
app = FastAPI()
app.add_middleware(MeshMiddleware, mesh=mesh)

began, ended = threading.Event(), threading.Event()


@app.get("/report")
@app.post("/report")
async def report() -> str:
    began.set()
    try:
        await asyncio.sleep(0.2)
        print("  the handler has finished")
    except asyncio.CancelledError:
        print("  the handler was cancelled")
        raise
    finally:
        ended.set()
    return "a report"


@app.get("/sum")
def total() -> int:
    """In a thread, which nothing can interrupt; but it can see that nobody waits."""
    began.set()
    number = 0
    while not meshlib.current().cancelled:
        number += 1
        time.sleep(0.001)
    print(f"  a handler in a thread has ended by itself: {meshlib.current().cancelled}")
    ended.set()
    return number


def go_away(method: str, path: str = "/report") -> None:
    """A caller that sends a request and hangs up."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"{method} {path} HTTP/1.1\r\nhost: reports\r\ncontent-length: 0\r\n\r\n".encode())
        began.wait()
    ended.wait()
    began.clear()
    ended.clear()


listener = socket.create_server(("127.0.0.1", 0))
port = listener.getsockname()[1]
server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
thread.start()

with httpx.Client(base_url=f"http://127.0.0.1:{port}") as caller:
    print("a caller that waits 50 ms:")
    answer = caller.get("/report", headers={"x-meshlib-deadline-ms": "50"})
    ended.wait()
    print(f"  and was answered {answer.status_code}, {answer.headers['x-meshlib-refused']}")
    began.clear()
    ended.clear()
    print("a GET whose caller goes away:")
    go_away("GET")
    print("a POST whose caller goes away:")
    go_away("POST")
    print("a GET of what runs in a thread:")
    go_away("GET", "/sum")
    print("a caller that has no time left:")
    answer = caller.get("/report", headers={"x-meshlib-deadline-ms": "0"})
    print(f"  was answered {answer.status_code}, {answer.headers['x-meshlib-refused']}")

server.should_exit = True
thread.join()
print(mesh.serving.in_flight, "in flight")
for (outcome, reason), count in sorted(mesh.serving.outcomes.items()):
    print(count, outcome, reason)
mesh.close()
