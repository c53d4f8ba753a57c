"""Contradictions in hedging."""

from __future__ import annotations

from meshlib.config import model as written
from meshlib.config.parts import Hedge
from meshlib.config.problems import Found, Path
from meshlib.durations import format_duration
from meshlib.policy.settings import CallPolicy

__all__ = ["hedge_faults", "unhedgeable"]


def hedge_faults(path: Path, part: Hedge, call: CallPolicy) -> Found:
    """Those of one ``hedge``; `call` is the policy that it is a part of."""
    hedge = call.hedge
    if hedge is None:
        return
    after = hedge.rule
    limits = {"timeout": call.timeout_s, "per_try_timeout": call.per_try_timeout_s}
    for name, limit_s in limits.items():
        if isinstance(after, float) and limit_s is not None and after >= limit_s:
            text = f"{format_duration(after)} is not below {name} ({format_duration(limit_s)}), so no hedge would start"
            yield (*path, "after"), text, frozenset({"after", name})
            break
    for name, limit_s in limits.items():
        if "min_delay" in part.model_fields_set and limit_s is not None and hedge.min_delay_s >= limit_s:
            least, most = format_duration(hedge.min_delay_s), format_duration(limit_s)
            text = f"{least} is not below {name} ({most}), so no hedge would start"
            yield (*path, "min_delay"), text, frozenset({"min_delay", name})
            break
    if not hedge.on_per_try_timeout or "on_per_try_timeout" not in part.model_fields_set:
        return
    here = (*path, "on_per_try_timeout")
    if call.per_try_timeout_s is None:
        yield here, "needs a 'per_try_timeout', and there is none", frozenset({"on_per_try_timeout", "per_try_timeout"})
    if not call.retry.max_retries:
        text = "needs retries, one of which starts at the per-try timeout; 'max_retries' is 0"
        yield here, text, frozenset({"on_per_try_timeout", "retry", "max_retries"})


def unhedgeable(config: written.MeshConfig) -> Found:
    """Where hedging is asked for although the wire has one attempt of a call at a time."""
    if config.wire != "stock":
        return
    places: list[tuple[Path, written.Policy | written.Route]] = [(("defaults",), config.defaults)]
    for name, service in config.services.items():
        places.append((("services", name), service))
        places += [(("services", name, "routes", index), route) for index, route in enumerate(service.routes)]
    for path, part in places:
        if isinstance(part.hedge, Hedge):
            text = "is not possible with 'wire: stock', where a thread has one attempt under way at a time"
            yield (*path, "hedge"), text, frozenset({"hedge", "wire"})
