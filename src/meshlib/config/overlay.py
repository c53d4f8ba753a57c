"""What a control plane says of a service, laid under what the user writes of it: his word holds, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from meshlib.config.compile import compile_service
from meshlib.config.dialects.draft import Context
from meshlib.config.dialects.merge import context_of
from meshlib.config.model import MeshConfig, Service
from meshlib.config.problems import dotted
from meshlib.config.settings import ServiceSettings
from meshlib.errors import ConfigError

__all__ = ["Overlay"]

_JOINED = ("hosts", "endpoints")


class Overlay:
    """Compiles services under one configuration.

    Attributes:
        context: what a translation into the native form may know of it.
    """

    def __init__(self, config: MeshConfig) -> None:
        self._config = config
        given = {name: getattr(config, name) for name in ("namespace", "labels", "service", "defaults")}
        self.context: Context = context_of({**given, "documents": config.documents})

    def __call__(self, name: str, data: Mapping[str, Any]) -> ServiceSettings:
        """The settings of a service.

        Args:
            name: its own.
            data: what the control plane says of it, in the native form.

        Raises:
            ConfigError: if that is not right.
        """
        own = self._config.services.get(name)
        written = {} if own is None else {field: getattr(own, field) for field in own.model_fields_set}
        merged = {**data, **written}
        for field in _JOINED:
            if field in data and field in written:
                merged[field] = [*written[field], *(each for each in data[field] if each not in written[field])]
        try:
            service = Service.model_validate(merged)
        except ValidationError as error:
            faults = (f"{dotted((name, *each['loc']))}: {each['msg']}" for each in error.errors(include_url=False))
            raise ConfigError(f"what is said of {name} is not right: {'; '.join(faults)}") from None
        return compile_service(name, service, self._config)
