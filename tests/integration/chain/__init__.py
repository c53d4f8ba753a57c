"""Four services, each calling the next: FastAPI under uvicorn, Flask under gunicorn, Django under gunicorn, FastAPI.

Their handlers say nothing of deadlines, criticality, traces or cancellation. What they were told is seen by a
`witness` around each application, which writes a line for each request that comes in and for its end.
"""
