"""The shop as the demo has it: which instances there are, and how they are started."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from meshlib.cli.demo.children import Child, Stage
from meshlib.cli.demo.registry import Registry

__all__ = ["Staff"]

_SHOP = "meshlib.cli.demo.shop"
_POLICIES = Path(__file__).parent / "shop" / "mesh.yaml"


class Staff:
    """The instances of the shop.

    Attributes:
        by_name: those of orders and catalogue, dead ones too, in the order in which they were started.
        storefronts: ``mesh`` and ``plain``.
    """

    def __init__(self, stage: Stage, registry: Registry) -> None:
        self.by_name: dict[str, Child] = {}
        self.storefronts: dict[str, Child] = {}
        self.registry = registry
        self._stage = stage
        self._environment: dict[str, str] = {}

    async def start(self) -> None:
        """Start everything, from the back to the front.

        Raises:
            DidNotStart: if a process does not start.
        """
        await self.registry.start()
        file = self._stage.directory / "mesh.yaml"
        kind, settings = next(iter(self.registry.discovery.items()))
        inside = ", ".join(f'{name}: "{value}"' for name, value in settings.items())
        file.write_text(f'discovery: [{{{kind}: {{{inside}}}}}]\ninclude: ["{_POLICIES}"]\n')
        self._environment["MESHLIB_CONFIG"] = str(file)
        # Where those that serve one port agree who enters it.
        self._environment["MESHLIB_LOCAL_DIR"] = str(self._stage.directory / "local")

        catalogue = await self._ready([self._instance("catalogue", n) for n in (1, 2, 3)])
        self._environment["SHOP_CATALOGUE"] = ",".join(child.address for child in catalogue)
        orders = [self._instance("orders", n) for n in (1, 2, 3)]
        orders.append(self._instance("orders", "v2"))
        self._environment["SHOP_ORDERS"] = ",".join(child.address for child in await self._ready(orders))
        mesh, plain = (
            self._stage.start_python(name, f"{_SHOP}.{name}", environment=self._environment)
            for name in ("storefront", "storefront_plain")
        )
        await self._ready([mesh, plain])
        self.storefronts = {"mesh": mesh, "plain": plain}

    async def replace(self) -> Child:
        """Start a further instance of orders, as an operator or an orchestrator would after one has died."""
        (child,) = await self._ready([self._instance("orders", 4)])
        return child

    def name_of(self, address: str) -> str:
        """The instance at an address."""
        return next((name for name, child in self.by_name.items() if child.address == address), address)

    def meshes(self) -> dict[str, str]:
        """Where those can be asked that call others through the mesh."""
        own = {name: child.url for name, child in self.by_name.items() if name.startswith("orders")}
        own["storefront"] = self.storefronts["mesh"].url
        return {name: url for name, url in own.items() if not url.endswith(":0")}

    def _instance(self, service: str, which: int | str) -> Child:
        name = f"{service}-{which}"
        version = "v2" if which == "v2" else "v1"
        arguments = [version] if service == "orders" else []
        child = self._stage.start_python(name, f"{_SHOP}.{service}", *arguments, environment=self._environment)
        self.by_name[name] = child
        return child

    async def _ready(self, children: Sequence[Child]) -> list[Child]:
        return await asyncio.gather(*(child.ready() for child in children))
