"""The shop of the demo, to be read as an example of services on the mesh.

- `storefront.py`: FastAPI: calls orders and catalogue through the mesh
- `storefront_plain.py`: the same, with httpx and a list of addresses
- `orders.py`: FastAPI: calls catalogue, in either way
- `catalogue.py`: Flask
- `mesh.yaml`: the policies
- `serving.py`: ports, and telling the demo where a service is
- `journal.py`: what the mesh says of itself, for the demo to show
- `trail.py`: what a call did, for the demo to count
"""
