"""gunicorn in the mesh, with settings of one's own: ``gunicorn -c gunicorn_conf.py draining:app``.

Without any: ``gunicorn -c python:meshlib.server.gunicorn draining:app``.
"""

from meshlib.server.gunicorn import child_exit, graceful_timeout, post_worker_init, worker_exit

workers = 2
timeout = 60

__all__ = ["child_exit", "graceful_timeout", "post_worker_init", "timeout", "worker_exit", "workers"]
