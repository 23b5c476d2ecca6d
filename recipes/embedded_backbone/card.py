"""The model card of a run: what was trained, on what, how, and how well it does on text held out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from embedded_backbone.corpus import HELD_OUT_EVERY, TextFile
from embedded_backbone.settings import PretrainSettings


def command(settings: PretrainSettings) -> str:
    """The command that repeats the run, settings that differ from the defaults only, folders by their last names."""
    default = PretrainSettings(text=Path("text"), folder=Path("run")).as_json()
    flags = []
    for name, value in settings.as_json().items():
        if name in ("text", "folder") or value != default[name]:
            shown = " ".join(value) if isinstance(value, list) else str(value)
            flag = name.replace("_", "-")
            flags.append(f"--{flag}" if value is True else f"--{flag} {shown}")
    return "python recipes/embedded_backbone " + " ".join(flags)


def write(folder: Path, settings: PretrainSettings, files: Sequence[TextFile], facts: Mapping[str, Any]) -> None:
    """Write ``README.md`` and ``training.json`` into the model's folder."""
    record = {
        "settings": settings.as_json(), "command": command(settings), "facts": dict(facts),
        "text": [{"name": file.name, "sha256": file.sha256} for file in files],
    }  # fmt: skip
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    rows = "\n".join(f"| {file.name} | `{file.sha256}` |" for file in files)
    losses = "\n".join(f"| {kind} | {loss} |" for kind, loss in facts["held_out"].items())
    (folder / "README.md").write_text(
        f"""# {settings.architecture} pre-trained by softprompt

Trained for {facts["step"]} steps of {settings.batch} examples ({facts["tokens"]:,} input and target tokens,
{facts["seconds"] / 60:.0f} minutes on {settings.device}), objective `{settings.objective}`, seed {settings.seed}.

```
{command(settings)}
```

| text | sha256 |
|---|---|
{rows}

One document in {HELD_OUT_EVERY} was held out. Its cross-entropy for a target token, in nats, against all words:

| kind | loss |
|---|---|
{losses}
""",
        encoding="utf-8",
    )
