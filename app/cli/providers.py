"""`spillway providers`: which providers this deployment can call, and whether they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from app.providers.base import VendorProvider
    from app.settings import Settings


def providers(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the providers: what they answer, where they are, how many keys they have, and whether they can be reached.

    Each is asked for the list of its models, which costs nothing. Examples:

      spillway providers
      spillway providers --json
    """
    from app.cli.context import command_settings, run  # noqa: PLC0415 - start-up time of the other commands

    _show(run(_look(command_settings())), as_json=as_json)


async def _look(settings: Settings) -> list[dict[str, Any]]:
    """What is to be said of each provider, known or only possible."""
    import asyncio  # noqa: PLC0415

    from app.providers.registry import offered  # noqa: PLC0415
    from app.providers.transport import silence_clients  # noqa: PLC0415

    silence_clients()
    names = dict.fromkeys((*offered(settings), *settings.known_providers()))
    return await asyncio.gather(*(_about(name, settings) for name in names))


async def _about(name: str, settings: Settings) -> dict[str, Any]:
    from app.providers.registry import build_provider, key_variable  # noqa: PLC0415
    from app.settings import SettingsError  # noqa: PLC0415

    try:
        provider = build_provider(name, settings)
    except SettingsError as error:
        return _absent(name, settings, str(error))
    if provider is None:
        return _absent(name, settings, f"it has no key: set {key_variable(name)}")
    try:
        return await _present(name, provider, settings)
    finally:
        await provider.close()


async def _present(name: str, provider: VendorProvider, settings: Settings) -> dict[str, Any]:
    access = provider.access
    found = await provider.available()
    return {
        **_known(name, settings),
        "kinds": sorted(provider.kinds),
        "default_model": access.default_model,
        "base_url": access.base_url,
        "keys": len(access.keys),
        "available": found.available,
        "note": found.note or _strange(name, access.default_model, found.models, settings) or None,
        "models": list(found.models),
    }


def _strange(name: str, model: str, models: tuple[str, ...], settings: Settings) -> str:
    """A named provider's default model is a word of the operator's; its server knows better."""
    if name not in settings.named_providers() or not models or model in models:
        return ""
    return f"its list has no {model}"


def _absent(name: str, settings: Settings, why: str) -> dict[str, Any]:
    unknown: dict[str, Any] = {"kinds": [], "default_model": None, "base_url": None, "keys": 0, "models": []}
    return {**_known(name, settings), **unknown, "available": False, "note": why}


def _known(name: str, settings: Settings) -> dict[str, Any]:
    """What the settings say. `order` is the place among those that requests go to by default, from 1."""
    part = settings.named_providers().get(name)
    order = settings.provider_order()
    return {
        "provider": name,
        "kind": part.kind if part is not None else "built_in",
        "order": order.index(name) + 1 if name in order else None,
        "claims": list(part.claims) if part is not None else None,
    }


def _show(found: list[dict[str, Any]], *, as_json: bool) -> None:
    from app.cli.output import print_json, print_table  # noqa: PLC0415

    if as_json:
        return print_json({"providers": found})
    return print_table(
        ("PROVIDER", "ORDER", "ANSWERS", "DEFAULT MODEL", "BASE URL", "KEYS", "AVAILABLE", "NOTE"),
        [
            (
                each["provider"],
                str(each["order"] or "–"),
                ", ".join(each["kinds"]) or "–",
                each["default_model"] or "–",
                each["base_url"] or "–",
                str(each["keys"]),
                "yes" if each["available"] else "no",
                each["note"] or "",
            )
            for each in found
        ],
        right=("ORDER", "KEYS"),
    )
