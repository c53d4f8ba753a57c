"""Kubernetes' own documents: what services there are, and who serves them.

- `service`: a Service: its names, its ports, and how its endpoints are to be chosen.
- `endpoints`: EndpointSlices, and the older Endpoints: addresses and their condition.
- `workloads`: Pods and Nodes: labels of endpoints, and where they run.
- `dialect`: all of them together, as services of the native form.
"""
