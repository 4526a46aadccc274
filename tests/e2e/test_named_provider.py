"""A server that nobody here wrote, added by configuration alone."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from app.cli.main import app
from app.devstack.stack import DevStack
from app.settings import Settings
from schemas.response import Status
from tests.support.provider.simulator import Simulator
from tests.support.reader.one import answer
from tests.support.stack.workers import WIDE_LANES, running_worker
from tests.support.values.names import unique

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]


async def test_a_server_with_openais_interface_is_added_by_configuration_alone(
    stack: DevStack, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Simulator.running(tmp_path) as simulator:
        name = f"local-{unique('x')}"[:40].lower()
        file = tmp_path / "settings.toml"
        file.write_text(
            f'[providers.{name}]\nkind = "openai_compatible"\nbase_url = "http://127.0.0.1:{simulator.port}/v1"\n'
            'models = ["llama-4", "llama-*"]\nembedding_model = "nomic-embed"\n'
            'price = { input_mtok = "10", output_mtok = "20", request = "0.5" }\n'
        )
        told = {"AI_SETTINGS_FILE": str(file), **WIDE_LANES}
        monkeypatch.setenv("AI_STACK_DIR", str(stack.folder))
        monkeypatch.setenv("AI_SETTINGS_FILE", str(file))
        made = await asyncio.to_thread(CliRunner().invoke, app, ["topics"])
        assert made.exit_code == 0, made.output
        listed = await asyncio.to_thread(CliRunner().invoke, app, ["providers", "--json"])
        [local] = [one for one in json.loads(listed.stdout)["providers"] if one["provider"] == name]
        assert (local["available"], local["keys"], local["kinds"]) == (True, 0, ["completion", "embedding"])
        with running_worker(stack, **told):
            found = await answer(settings, prompt="Hello", model="llama-4-scout")
            assert (found.status, found.provider, found.model) == (Status.SUCCEEDED, name, "llama-4-scout")
            usage = found.usage
            dollars = (10 * usage.prompt_tokens + 20 * usage.completion_tokens) / 1_000_000 + 0.5
            assert float(usage.cost) == pytest.approx(dollars, abs=1e-9)
            vectors = await answer(settings, kind="embedding", input="a", preferred_providers=[name])
            assert (vectors.provider, vectors.model) == (name, "nomic-embed")
            assert len(simulator.calls()) == 2
            unknown = await answer(settings, prompt="Hello", model="nobody-has-this")
            assert unknown.status is Status.REJECTED
            assert unknown.error is not None
            assert unknown.error.code == "unknown_model"
            assert f"{name} (llama-4, llama-*" in unknown.error.message
