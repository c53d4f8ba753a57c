"""The demo: a small shop of real processes, faults on purpose, and what they cost with the mesh and without it.

- `shop/`: the services, to be read as examples
- `children.py`: processes: started, and ended however the demo ends
- `registry.py`: the embedded registry, or a Consul agent, and its restart
- `staff.py`: the instances of the shop
- `faults.py`: what is broken in each phase, and mended after it
- `traffic.py`: the same requests to both storefronts
- `watching.py`: what the meshes say of themselves
- `figures.py`: what became of the requests, and the rule by which the demo succeeds
- `screen.py`: the live table, or lines
- `report.py`: the text and the JSON at the end
- `run.py`: puts these together
"""
