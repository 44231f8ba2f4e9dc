"""Test with generated requests that the API behaves as its OpenAPI description states."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case
from schemathesis.schemas import APIOperation, BaseSchema
from schemathesis.specs.openapi.checks import positive_data_acceptance

from semcut.connector.explore.http_api import create_app
from semcut.connector.explore.service import ExploreService
from tests.thorough import examples


@pytest.fixture(scope="module")
def description(service: ExploreService) -> BaseSchema:
    return schemathesis.openapi.from_asgi("/openapi.json", create_app(service, hosts=["testserver"]))


OPERATIONS = ["GET /health", "GET /stats", "POST /search", "GET /records", "GET /records/{record}",
              "GET /records/{record}/thumbnail", "GET /record", "GET /record/thumbnail",
              "GET /partitions", "GET /partitions/{partition}"]  # fmt: skip


UNCHECKED = {"POST /search": [positive_data_acceptance]}
"""Rules that the description cannot express: a shortlist is at least k, and `image` must be an image file."""


def operations(description: BaseSchema) -> dict[str, APIOperation]:
    return {found.ok().label: found.ok() for found in description.get_all_operations()}


def test_every_operation_is_tested(description: BaseSchema) -> None:
    assert sorted(operations(description)) == sorted(OPERATIONS)


@pytest.mark.parametrize("label", OPERATIONS)
def test_every_response_is_as_described(label: str, description: BaseSchema) -> None:
    operation = operations(description)[label]

    @settings(max_examples=examples(60), deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(case=operation.as_strategy())
    def every_response(case: Case) -> None:
        case.call_and_validate(excluded_checks=UNCHECKED.get(label, []))

    every_response()
