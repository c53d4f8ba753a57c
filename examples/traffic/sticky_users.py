"""Four instances of a service with a cache for each user: whose call it is says which instance it goes to."""

import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import meshlib
from meshlib import HashOn, LoadBalancing, Mesh, Service, SessionAffinity


def serve(name: str) -> ThreadingHTTPServer:
    class Baskets(BaseHTTPRequestHandler):
        wbufsize = -1  # headers and body go out together

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(name)))
            self.end_headers()
            self.wfile.write(name.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Baskets)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


servers = {name: serve(name) for name in ("north", "east", "south", "west")}
endpoints = [f"127.0.0.1:{server.server_port}" for server in servers.values()]

with Mesh(
    services={
        "baskets": Service(
            endpoints=endpoints,
            load_balancing=LoadBalancing(policy="maglev"),
            hash_on=[HashOn(header="x-user")],
        ),
        "editor": Service(
            endpoints=endpoints,
            load_balancing=LoadBalancing(policy="round_robin", session_affinity=SessionAffinity(cookie="editor-at")),
        ),
    }
) as mesh:
    baskets = mesh.client("baskets")
    users = [f"user-{number}" for number in range(40)]
    places = {user: {baskets.get("/", headers={"x-user": user}).text for _ in range(5)} for user in users}
    print(f"users of which every call went to one instance: {sum(len(names) == 1 for names in places.values())} of 40")
    print(f"instances in use: {len({name for names in places.values() for name in names})}")

    by_key = baskets.get("/", extensions=meshlib.call(hash_key="user-7"))
    print(f"by a key that the call gives, the same: {by_key.text in places['user-7']}")

    # The client's jar keeps the cookie, and round robin is asked but once.
    editor = mesh.client("editor")
    first = editor.get("/").text
    print(f"the session stays where it began: {Counter(editor.get('/').text for _ in range(20)) == {first: 20}}")

    gone = servers[first]
    gone.shutdown()
    gone.server_close()
    moved = editor.get("/").text
    print(f"its instance is gone, so it moves once: {moved != first and editor.get('/').text == moved}")
