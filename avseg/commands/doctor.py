"""``avseg doctor``: what is installed here, what works and what is missing."""

from typing import Any

from avseg.commands.parser import Parser

FAILED = 1


def doctor_parser() -> Parser:
    return Parser(
        "avseg doctor",
        "",
        "Tell versions, devices, codecs, weights and free disk, and how to get what is missing. Nothing is downloaded "
        "or written. The exit code is 1 if anything is missing that segmenting or training needs.",
        "avseg doctor",
    )


def doctor(options: Any) -> int:
    from avseg.doctor import examine

    findings = examine()
    widest = max(len(finding.name) for finding in findings)
    section = ""
    for finding in findings:
        if finding.section != section:
            section = finding.section
            print(f"{section}" if finding is findings[0] else f"\n{section}")
        mark = {"ok": " ", "optional": "-", "missing": "!"}[finding.state]
        print(f"{mark} {finding.name:<{widest}}  {finding.value}")
    for state, title in (("optional", "not here, and not always needed"), ("missing", "missing")):
        lacking = [finding for finding in findings if finding.state == state]
        if lacking:
            print(f"\n{title}")
        for finding in lacking:
            print(f"  {finding.name}: {finding.mend}")
    if any(finding.state == "missing" for finding in findings):
        return FAILED
    print("\nEverything that is needed is here.")
    return 0
