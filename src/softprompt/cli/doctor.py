"""``softprompt doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from softprompt.cli.app import app, command
from softprompt.cli.output import AT_HAND, Answer

if TYPE_CHECKING:
    from rich.console import Console

    from softprompt.doctor import Finding


@command(app, "doctor", "softprompt doctor", "softprompt doctor --json")
def doctor() -> Answer:
    """Say what this machine has and lacks, and what to do."""
    import softprompt
    from softprompt.doctor import examine

    findings = examine()
    problems = sum(f.level == "problem" for f in findings)
    data = {"version": softprompt.__version__, "problems": problems, "findings": findings}
    return Answer(
        data=data, show=lambda out: _show(findings, problems, out), next=[("quickstart",), ("train", AT_HAND)]
    )


def _show(findings: list[Finding], problems: int, out: Console) -> None:
    marks = {"ok": "[green]ok[/]", "note": "[yellow]note[/]", "problem": "[red]problem[/]"}
    from rich.markup import escape

    area = ""
    for finding in findings:
        if finding.area != area:
            area = finding.area
            out.print(f"[bold]{area}[/]")
        out.print(f"  {marks[finding.level]:<18} {escape(f'{finding.name}: {finding.found}')}")
        if finding.remedy:
            out.print(f"          {escape(finding.remedy)}")
    out.print("nothing that is needed is missing." if not problems else f"{problems} problem(s): see above.")
