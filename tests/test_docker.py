"""docker/compose.yaml: valid for the compose specification, pinned, checked for health, closed to others.

Nothing is started: these tests need no Docker.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "docker" / "compose.yaml"
STACK = yaml.safe_load(COMPOSE.read_text())
SERVICES = STACK["services"]

EXACT_VERSION = re.compile(r"v\d+\.\d+\.\d+|RELEASE\.\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ")
REQUIRED = re.compile(r"\$\{([A-Z_]+):\?[^{}]+\}")  # Compose refuses to start when it is unset or empty
CREDENTIAL = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY|ROOT_USER", re.IGNORECASE)

each_service = pytest.mark.parametrize("service", SERVICES)


def scalars(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with the name it has; elements of a list have the name of the list."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from scalars(value, str(key))
    elif isinstance(node, list):
        for value in node:
            yield from scalars(value, name)
    else:
        yield name, node


def test_it_is_valid_for_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_three_services_are_there() -> None:
    images = {service: SERVICES[service]["image"].rpartition(":")[0] for service in SERVICES}
    assert images == {"etcd": "quay.io/coreos/etcd", "minio": "minio/minio", "milvus": "milvusdb/milvus"}


@each_service
def test_the_version_is_exact(service: str) -> None:
    assert EXACT_VERSION.fullmatch(SERVICES[service]["image"].rpartition(":")[2]), SERVICES[service]["image"]


@each_service
def test_health_is_checked(service: str) -> None:
    check = SERVICES[service]["healthcheck"]
    assert check["test"][0] == "CMD"
    assert len(check["test"]) > 1
    assert {"interval", "timeout", "retries"} <= set(check)
    assert "disable" not in check


def test_milvus_waits_until_the_others_are_healthy() -> None:
    assert SERVICES["milvus"]["depends_on"] == {
        "etcd": {"condition": "service_healthy"},
        "minio": {"condition": "service_healthy"},
    }


@each_service
def test_it_comes_back_and_its_log_is_bounded(service: str) -> None:
    assert SERVICES[service]["restart"] == "unless-stopped"
    assert {"max-size", "max-file"} <= set(SERVICES[service]["logging"]["options"])
    assert "container_name" not in SERVICES[service], "a second project could not start"


def test_data_are_in_named_volumes() -> None:
    """Each service has its own, and none is declared in vain."""
    used = [mount.split(":")[0] for service in SERVICES.values() for mount in service["volumes"]]
    assert sorted(used) == sorted(STACK["volumes"])
    assert all(service["volumes"] for service in SERVICES.values())


def test_one_port_is_published_and_to_this_machine_only() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {"milvus": ["127.0.0.1:19530:19530"]}
    assert not any("network_mode" in service for service in SERVICES.values())


def test_passwords_are_asked_for_and_never_written_down() -> None:
    credentials = [(name, value) for name, value in scalars(STACK) if CREDENTIAL.search(f"{name} {value}")]
    assert len(credentials) >= 5
    for name, value in credentials:
        assert REQUIRED.fullmatch(str(value)), f"{name}: {value}"
    assert all("env_file" not in service for service in SERVICES.values())


def test_milvus_asks_who_is_there() -> None:
    """With the passwords that the servers know, not the ones they come with."""
    milvus, minio = SERVICES["milvus"]["environment"], SERVICES["minio"]["environment"]
    assert milvus["COMMON_SECURITY_AUTHORIZATIONENABLED"] == "true"
    assert REQUIRED.fullmatch(milvus["COMMON_SECURITY_DEFAULTROOTPASSWORD"])[1] == "MILVUS_ROOT_PASSWORD"
    assert milvus["MINIO_ACCESS_KEY_ID"] == minio["MINIO_ROOT_USER"]
    assert milvus["MINIO_SECRET_ACCESS_KEY"] == minio["MINIO_ROOT_PASSWORD"]


def test_the_example_names_every_variable_and_gives_none_a_value() -> None:
    used = {name for _, value in scalars(STACK) for name in re.findall(r"\$\{?(\w+)", str(value))}
    lines = (ROOT / "docker" / ".env.example").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert given == dict.fromkeys(used, "")


def test_the_passwords_stay_out_of_git() -> None:
    assert "/docker/.env" in (ROOT / ".gitignore").read_text().splitlines()
