"""The control plane against its own OpenAPI document: no 500, no answer that the document does not have.

Schemathesis makes requests, always the same, and checks each answer: status, content type, and the shape of its body.
Requests that fit the document and requests that do not, to what exists and to what does not; once as an admin, once as
somebody who may only look. PROMPTGATE_API_EXAMPLES says how many of each sort (a longer search is for people).
"""

import os
import pathlib
import sys

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "clients"))

from gateway import Gateway  # noqa: E402

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = int(os.environ.get("PROMPTGATE_API_EXAMPLES", "2"))
# Calls that would take the tests' own authority away.
OWN = {"/users/{user}/tokens/{token}"}


@pytest.fixture(scope="session")
def gateway():
    with Gateway() as gateway:
        gateway.exchange_id = _seed(gateway)
        yield gateway


def _seed(gateway):
    """Something of every kind, so that well-formed requests find it."""
    gateway.admin("POST", "/users", {"name": "vic"})
    # Another one than the made-up requests grant roles to.
    gateway.admin("POST", "/users", {"name": "onlooker", "grants": [{"role": "viewer"}]})
    gateway.viewer = gateway.admin("POST", "/users/onlooker/tokens", {"name": "api"})["secret"]
    split = [{"variant": "control", "version": 1, "weight": 100}]
    deployments = [{"prompt": "support/greet", "split": split}]
    gateway.admin("POST", "/changes", {"environment": "staging", "deployments": deployments, "message": "try"})


@pytest.fixture(scope="session")
def document(gateway):
    return schemathesis.openapi.from_url(
        gateway.admin_url + "/openapi.json", headers={"authorization": f"Bearer {gateway.token}"}
    )


# What exists, for parameters of those names: random ones nearly always miss.
KNOWN = {
    "id": "support/greet",
    "version": "1",
    "environment": "production",
    "change": "1",
    "name": "production",
    "user": "vic",
}


class Bearer(requests.auth.AuthBase):
    """The token, whatever a made-up request has in its place: other tests look at wrong tokens."""

    def __init__(self, token):
        self.token = token

    def __call__(self, request):
        request.headers["authorization"] = f"Bearer {self.token}"
        return request


def _operations(document):
    for result in document.get_all_operations():
        operation = result.ok()
        if operation.path not in OWN:
            yield operation


def _check(operation, token, known, mode):
    """Sends made-up requests of one call, to what exists where `known`."""
    from hypothesis import given

    problems = []
    session = requests.Session()
    session.auth = Bearer(token)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def attempt(case):
        if known and case.path_parameters:
            case.path_parameters.update({k: v for k, v in KNOWN.items() if k in case.path_parameters})
        response = case.call(session=session)
        try:
            case.validate_response(response, checks=CHECKS)
        except BaseException as failure:  # noqa: BLE001 - each kind of problem once
            text = "\n".join(str(part) for part in getattr(failure, "exceptions", [failure]))
            problems.append(f"{operation.label}: {response.status_code} {text}"[:1500])

    try:
        attempt()
    except Unsatisfiable:
        # A call that takes nothing cannot be asked wrongly.
        assert mode is GenerationMode.NEGATIVE, operation.label
    return problems[:3]


@pytest.mark.parametrize("role", ["admin", "viewer"])
def test_answers_are_as_documented(gateway, document, role):
    token = gateway.token if role == "admin" else gateway.viewer
    problems = []
    for operation in _operations(document):
        for known in (True, False):
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                problems += _check(operation, token, known, mode)
    assert not problems, "\n\n".join(problems)
