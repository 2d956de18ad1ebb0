"""Every example of docs/clients.md, run as it stands but for the gateway's address."""

import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
DOCUMENT = ROOT / "docs" / "clients.md"
DEFAULT = "http://127.0.0.1:8080/v1"


def recipes():
    heading = ""
    for match in re.finditer(r"^## ([^\n]+)$|^```(\w*)\n(.*?)^```$", DOCUMENT.read_text(), re.M | re.S):
        title, language, code = match.groups()
        if title:
            heading = title
        else:
            yield pytest.param(language, code, id=f"{heading}, {language}")


RECIPES = list(recipes())
assert RECIPES, f"no example was found in {DOCUMENT}"


@pytest.mark.parametrize(("language", "code"), RECIPES)
def test_recipe_works(gateway, monkeypatch, capfd, language, code):
    assert DEFAULT in code
    monkeypatch.setenv("PROMPTGATE_KEY", gateway.keys["app"])
    run(language, code.replace(DEFAULT, gateway.base_url))
    out, err = capfd.readouterr()
    assert out.strip(), "it prints what came"
    assert not err
    if "-N" in code:
        assert out.endswith("data: [DONE]\n\n")


def run(language, code):
    match language:
        case "python":
            # Here rather than in a process of its own: to import the SDKs takes seconds.
            exec(compile(code, str(DOCUMENT), "exec"), {"__name__": "__main__"})
        case "bash":
            subprocess.run(["bash", "-euo", "pipefail", "-c", code], check=True, timeout=60)
        case "js":
            # Where its packages are.
            folder = ROOT / "tests" / "clients" / "node"
            subprocess.run(["node", "--input-type=module", "-e", code], cwd=folder, check=True, timeout=60)
        case _:
            pytest.fail(f"nothing runs {language!r} here")
