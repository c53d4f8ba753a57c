"""``meshlib override``: signs a header that takes one request to other instances of services."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from meshlib.cli.output import PATH, fail, settings_of
from meshlib.durations import LONGEST_S, format_duration, parse_duration

if TYPE_CHECKING:
    from meshlib.routing.override_settings import OverrideSettings

__all__ = ["KEY_VARIABLE", "override"]

KEY_VARIABLE: Final = "MESHLIB_OVERRIDE_KEY"


@click.command(short_help="Sign a header that takes a request elsewhere.")
@click.argument("pairs", nargs=-1, required=True, metavar="SERVICE=OTHER...")
@click.option("--for", "lasting", default="1h", show_default=True, help="How long it is believed.")
@click.option("--config", type=PATH, help="A configuration with `overrides`, for its key and header.")
@click.option("--key-file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="The key, in a file.")
@click.option("--value", "bare", is_flag=True, help="The value alone, without the header's name.")
def override(pairs: tuple[str, ...], lasting: str, config: Path | None, key_file: Path | None, bare: bool) -> None:
    """Print a signed header: requests that bear it, and all that they lead to, find OTHER in the place of SERVICE.

    OTHER is a service, or an IP address and a port. The key is that of `overrides` in the configuration; it comes
    from --config, from --key-file, or from $MESHLIB_OVERRIDE_KEY, and never from an argument, which others can see.

    \b
    Examples:
      curl -H "$(meshlib override users=users-dev-alice)" http://shop.example/
      meshlib override users=10.8.0.9:8080 --for 30m --config mesh.yaml

    Exits with 0, or with 2 if there is no key or a name is none.
    """
    from meshlib.routing.override import sign_override

    settings = _settings(config)
    try:
        lasting_s = parse_duration(lasting)
    except ValueError:
        lasting_s = 0.0
    if not 0 < lasting_s <= LONGEST_S:
        raise click.BadParameter(f"{lasting!r} is not a duration such as 30m or 8h", param_hint="--for")
    if config is not None and lasting_s > settings.max_age_s:
        fail(f"--for {lasting}: the configuration believes none for longer than {format_duration(settings.max_age_s)}")
    try:
        value = sign_override(_pairs(pairs), _key(settings, key_file), expires_at=time.time() + lasting_s)
    except ValueError as error:
        fail(str(error))
    click.echo(value if bare else f"{settings.header}: {value}")


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for each in given:
        service, found, target = each.partition("=")
        if not found or service in pairs:
            raise click.BadParameter(f"{each!r} is not SERVICE=OTHER, each service once")
        pairs[service.strip()] = target.strip()
    return pairs


def _settings(config: Path | None) -> OverrideSettings:
    from meshlib.routing.override_settings import OverrideSettings

    if config is None:
        return OverrideSettings()
    found = settings_of([config]).overrides
    if found is None:
        fail(f"{config} has no `overrides`: nothing that is signed would be believed")
    return found


def _key(settings: OverrideSettings, key_file: Path | None) -> str:
    if key_file is not None:
        try:
            return key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            fail(f"{key_file} cannot be read: {error}")
    key = settings.key[0] if settings.key else os.environ.get(KEY_VARIABLE, "")
    if not key:
        fail(f"there is no key: --config, --key-file or ${KEY_VARIABLE} has it")
    return key
