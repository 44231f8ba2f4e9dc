"""The files in docker/ are correct.

The compose file is valid, has exact versions, checks health and is closed to other machines; hadolint accepts both
Dockerfiles, and their packages are pinned. No image is built or started, so these tests need no Docker.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "docker" / "compose.yaml"
STACK = yaml.safe_load(COMPOSE.read_text())
ALL_SERVICES = STACK["services"]
SERVICES = {name: service for name, service in ALL_SERVICES.items() if "profiles" not in service}
PINS = (ROOT / "docker" / "constraints.txt").read_text().splitlines()
DOCKERFILES = {name: ROOT / "docker" / name for name in ("Dockerfile", "Dockerfile.gpu")}

EXACT_VERSION = re.compile(r"v\d+\.\d+\.\d+|RELEASE\.\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ")
REQUIRED = re.compile(r"\$\{([A-Z_]+):\?[^{}]+\}")  # Compose refuses to start if the variable is unset or empty
CREDENTIAL = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY|ROOT_USER", re.IGNORECASE)

each_service = pytest.mark.parametrize("service", SERVICES)
each_dockerfile = pytest.mark.parametrize("name", DOCKERFILES)


def scalars(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value with its name; elements of a list have the name of the list."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from scalars(value, str(key))
    elif isinstance(node, list):
        for value in node:
            yield from scalars(value, name)
    else:
        yield name, node


def test_the_file_is_valid_by_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_three_services() -> None:
    images = {service: SERVICES[service]["image"].rpartition(":")[0] for service in SERVICES}
    assert images == {"etcd": "quay.io/coreos/etcd", "minio": "minio/minio", "milvus": "milvusdb/milvus"}


@each_service
def test_the_version_is_exact(service: str) -> None:
    assert EXACT_VERSION.fullmatch(SERVICES[service]["image"].rpartition(":")[2]), SERVICES[service]["image"]


def test_minio_has_what_the_log_of_milvus_2_6_needs() -> None:
    assert SERVICES["milvus"]["image"].startswith("milvusdb/milvus:v2.6.")
    assert SERVICES["minio"]["image"].rpartition("RELEASE.")[2] >= "2024-12-18"


@each_service
def test_no_process_gains_privileges(service: str) -> None:
    assert SERVICES[service]["security_opt"] == ["no-new-privileges:true"]


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
def test_a_service_restarts_and_its_log_is_bounded(service: str) -> None:
    assert SERVICES[service]["restart"] == "unless-stopped"
    assert {"max-size", "max-file"} <= set(SERVICES[service]["logging"]["options"])
    assert "container_name" not in SERVICES[service], "a second project could not start"


def test_data_are_in_named_volumes() -> None:
    """Each service has its own volumes, and every declared volume is used."""
    used = [mount.split(":")[0] for service in ALL_SERVICES.values() for mount in service["volumes"]]
    assert sorted(used) == sorted(STACK["volumes"])
    assert all(service["volumes"] for service in ALL_SERVICES.values())


def test_one_port_is_published_to_this_machine_only() -> None:
    published = {name: service["ports"] for name, service in ALL_SERVICES.items() if "ports" in service}
    assert published == {"milvus": ["127.0.0.1:19530:19530"]}
    assert not any("network_mode" in service for service in ALL_SERVICES.values())


def test_passwords_are_required_and_none_is_in_the_file() -> None:
    credentials = [(name, value) for name, value in scalars(STACK) if CREDENTIAL.search(f"{name} {value}")]
    assert len(credentials) >= 6
    for name, value in credentials:
        assert REQUIRED.fullmatch(str(value).removeprefix("root:")), f"{name}: {value}"
    assert all("env_file" not in service for service in ALL_SERVICES.values())


def test_milvus_requires_a_password() -> None:
    """The servers get the passwords of the user, in place of their defaults."""
    milvus, minio = SERVICES["milvus"]["environment"], SERVICES["minio"]["environment"]
    assert milvus["COMMON_SECURITY_AUTHORIZATIONENABLED"] == "true"
    assert REQUIRED.fullmatch(milvus["COMMON_SECURITY_DEFAULTROOTPASSWORD"])[1] == "MILVUS_ROOT_PASSWORD"
    assert milvus["MINIO_ACCESS_KEY_ID"] == minio["MINIO_ROOT_USER"]
    assert milvus["MINIO_SECRET_ACCESS_KEY"] == minio["MINIO_ROOT_PASSWORD"]


def test_the_service_semcut_reaches_milvus() -> None:
    semcut, milvus = ALL_SERVICES["semcut"], SERVICES["milvus"]["environment"]
    assert semcut["image"] == f"semcut:{version('semcut')}"
    assert (COMPOSE.parent / semcut["build"]["context"] / semcut["build"]["dockerfile"]).is_file()
    assert semcut["depends_on"] == {"milvus": {"condition": "service_healthy"}}
    host, port = semcut["environment"]["MILVUS_URI"].removeprefix("http://").split(":")
    assert (host, port) == ("milvus", SERVICES["milvus"]["ports"][0].rpartition(":")[2])
    assert semcut["environment"]["MILVUS_TOKEN"] == f"root:{milvus['COMMON_SECURITY_DEFAULTROOTPASSWORD']}"
    assert semcut["volumes"] == [f"semcut:{last_arguments(DOCKERFILES['Dockerfile'], 'WORKDIR')}"]


def test_the_example_names_every_variable_and_gives_none_a_value() -> None:
    used = {name for _, value in scalars(STACK) for name in re.findall(r"\$\{?(\w+)", str(value))}
    lines = (ROOT / "docker" / ".env.example").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert given == dict.fromkeys(used, "")


def test_the_passwords_stay_out_of_git() -> None:
    assert "/docker/.env" in (ROOT / ".gitignore").read_text().splitlines()


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Read the instructions, each with its arguments on one line, without comments."""
    lines = [line for line in dockerfile.read_text().splitlines() if line.strip() and not line.startswith("#")]
    whole = re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in whole)]


def last_arguments(dockerfile: Path, word: str) -> str:
    """Return the arguments of the last of these instructions."""
    return [rest for other, rest in instructions(dockerfile) if other == word][-1]


@each_dockerfile
def test_hadolint_finds_nothing(name: str) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, DOCKERFILES[name]], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


@each_dockerfile
def test_base_images_are_exact(name: str) -> None:
    bases = [rest for word, rest in instructions(DOCKERFILES[name]) if word == "FROM"]
    assert len(bases) == 2
    for base in bases:
        assert re.fullmatch(r"[\w/]+:\d+\.\d+\.\d+-[\w.-]+@sha256:[0-9a-f]{64}( AS \w+)?", base), base


@each_dockerfile
def test_an_image_runs_semcut_and_not_as_root(name: str) -> None:
    assert int(last_arguments(DOCKERFILES[name], "USER")) >= 10_000
    assert last_arguments(DOCKERFILES[name], "ENTRYPOINT") == '["semcut"]'


@each_dockerfile
def test_search_kernels_are_compiled_where_every_user_of_the_image_finds_them(name: str) -> None:
    steps = instructions(DOCKERFILES[name])
    words = [f"{word} {rest}" for word, rest in steps]
    (warmup,) = (position for position, step in enumerate(words) if "semcut warmup" in step)
    given = [
        (position, found[1]) for position, step in enumerate(words) if (found := re.search(r"CACHE_DIR=(\S+)", step))
    ]
    ((before, folder),) = given
    assert before < warmup < words.index(f"USER {last_arguments(DOCKERFILES[name], 'USER')}")
    assert f"--mode=1777 {folder} " in words[warmup], (
        "on another kind of processor, users must be able to add their own kernels"
    )
    assert not folder.startswith(("/tmp", "/data")), "a volume that is mounted there would hide the kernels"


@each_dockerfile
def test_files_that_are_copied_into_an_image_exist_and_are_not_ignored(name: str) -> None:
    wanted = (ROOT / ".dockerignore").read_text().splitlines()
    for word, rest in instructions(DOCKERFILES[name]):
        if word == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert {f"!{source}", f"!{source.split('/')[0]}"} & set(wanted)
    assert "!docker/constraints.txt" in wanted


def required(
    package: str, extras: set[str], seen: dict[tuple[str, str], Requirement]
) -> dict[tuple[str, str], Requirement]:
    """Find what an installed package requires with these extras, and what those packages require in turn."""
    for text in metadata(package).get_all("Requires-Dist") or []:
        one = Requirement(text)
        name = canonicalize_name(one.name)
        if one.marker is not None and not any(one.marker.evaluate({"extra": extra}) for extra in extras or {""}):
            continue
        if (name, str(one.specifier)) not in seen:
            seen[name, str(one.specifier)] = one
            with contextlib.suppress(PackageNotFoundError):  # faiss-gpu, if faiss-cpu is installed
                if f"{name}=={version(name)}" in PINS:  # another version may require something else
                    required(name, one.extras, seen)
    return seen


@each_dockerfile
def test_every_package_in_an_image_is_pinned_to_a_version_that_semcut_accepts(name: str) -> None:
    pins = dict(line.split("==") for line in PINS if not line.startswith("#"))
    (extras,) = re.findall(r"\.whl\)\[([\w,-]+)\]", DOCKERFILES[name].read_text())
    found = required("semcut", set(extras.split(",")), {})
    assert len(found) >= 20
    for package, _ in found:
        assert package in pins or package.startswith(("nvidia-", "cuda-")), package
    for text in metadata("semcut").get_all("Requires-Dist") or []:
        one = Requirement(text)
        if canonicalize_name(one.name) in pins:
            assert one.specifier.contains(pins[canonicalize_name(one.name)]), one
    assert ("gpu" if name == "Dockerfile.gpu" else "cpu") in extras.split(",")
