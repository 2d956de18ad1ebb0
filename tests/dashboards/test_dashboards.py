"""The dashboards' files: what Grafana needs to load them as they are, and what a reader needs to use them."""

import json
import pathlib
import re
import subprocess

import pytest
import yaml

import grafana
from processes import tool

NAMES = sorted(path.stem for path in grafana.FOLDER.glob("*.json"))
UIDS = {"gateway": "promptgate-gateway", "prompts-and-variants": "promptgate-prompts"}
TYPES = {"gateway": grafana.PROMETHEUS, "prompts-and-variants": grafana.CLICKHOUSE}


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def dashboard(name):
    return grafana.load(name)


def _data_sources(part):
    """Every `datasource` anywhere in the dashboard."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "datasource":
                yield value
            else:
                yield from _data_sources(value)
    elif isinstance(part, list):
        for one in part:
            yield from _data_sources(one)


def test_dashboard_can_be_provisioned(name, dashboard):
    assert dashboard["uid"] == UIDS[name]
    assert dashboard["id"] is None and "__inputs" not in dashboard
    assert dashboard["schemaVersion"] >= 39
    assert dashboard["time"] == {"from": "now-6h", "to": "now"} and dashboard["refresh"] == "30s"


def test_data_source_is_a_variable(name, dashboard):
    variable = grafana.variables(dashboard)["datasource"]
    assert (variable["type"], variable["query"]) == ("datasource", TYPES[name])
    chosen = {"type": TYPES[name], "uid": "${datasource}"}
    own = {"type": "grafana", "uid": "-- Grafana --"}
    assert all(source in (chosen, own) for source in _data_sources(dashboard))


def test_panels_explain_themselves(dashboard):
    for panel in grafana.panels(dashboard):
        title = panel["title"]
        assert len(panel["description"]) > 40, f"{title} does not say what to do when it moves"
        assert panel["targets"], title
        if panel["type"] != "table":
            assert panel["fieldConfig"]["defaults"]["unit"], title


def test_ids_and_titles_are_unique(dashboard):
    ids = [panel["id"] for panel in dashboard["panels"]]
    titles = [panel["title"] for panel in grafana.panels(dashboard)]
    assert len(set(ids)) == len(ids)
    assert len(set(titles)) == len(titles)


def test_panels_do_not_overlap(dashboard):
    taken = {}
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies over {taken[x, y]}"
                taken[x, y] = panel["title"]


def test_variables_are_used(name, dashboard):
    text = json.dumps(dashboard["panels"])
    for variable in grafana.variables(dashboard):
        assert re.search(rf"\${variable}\b|\${{{variable}[:}}]", text), f"{variable} is chosen and changes nothing"


def test_provisioning_names_what_is_there():
    folder = grafana.FOLDER / "provisioning"
    sources = yaml.safe_load((folder / "datasources.yaml").read_text())["datasources"]
    assert {source["type"] for source in sources} == set(TYPES.values())
    assert all("uid" in source for source in sources)
    providers = yaml.safe_load((folder / "dashboards.yaml").read_text())["providers"]
    assert [provider["type"] for provider in providers] == ["file"]


def test_scrape_configuration_is_valid(tmp_path):
    """The one in the README."""
    readme = (grafana.FOLDER / "README.md").read_text()
    (example,) = [block for block in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL) if "scrape_configs" in block]
    path = pathlib.Path(tmp_path / "prometheus.yml")
    path.write_text(example)
    checked = subprocess.run([tool("promtool"), "check", "config", path], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr + checked.stdout
