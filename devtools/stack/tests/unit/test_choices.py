"""Which way each store is had, and what names and settings come of it."""

import pytest
from quill_stack import kafka
from quill_stack.errors import StackError
from quill_stack.postgres import create_database, with_database
from quill_stack.stores import chosen_modes

ALL = {"DATABASE_URL": "postgresql://h/db", "REDIS_URL": "redis://h", "KAFKA_BOOTSTRAP_SERVERS": "h:9092"}


@pytest.mark.parametrize(
    ("environ", "engine", "expected"),
    [
        ({}, False, ("embedded", "embedded", "embedded")),
        ({}, True, ("compose", "compose", "compose")),
        (ALL, True, ("env", "env", "env")),
        ({"REDIS_URL": "redis://h"}, False, ("embedded", "embedded", "env")),
        ({"REDIS_URL": "redis://h"}, True, ("compose", "compose", "env")),
        ({"REDIS_URL": ""}, False, ("embedded", "embedded", "embedded")),
        (ALL | {"STACK_MODE": "embedded"}, True, ("embedded", "embedded", "embedded")),
        (ALL | {"STACK_MODE": "compose"}, True, ("compose", "compose", "compose")),
        (ALL | {"STACK_MODE": "env"}, False, ("env", "env", "env")),
    ],
)
def test_the_first_open_way_wins_and_stack_mode_forces_one(environ, engine, expected):
    modes = chosen_modes(environ, engine_is_up=lambda: engine)
    assert (modes["kafka"], modes["postgres"], modes["redis"]) == expected


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"STACK_MODE": "podman"}, "STACK_MODE=podman is unknown"),
        ({"STACK_MODE": "env", "REDIS_URL": "redis://h"}, "KAFKA_BOOTSTRAP_SERVERS and DATABASE_URL are not set"),
        ({"STACK_MODE": "compose"}, "no Docker engine"),
    ],
)
def test_a_forced_way_that_is_closed_is_an_error(environ, said):
    with pytest.raises(StackError, match=said):
        chosen_modes(environ, engine_is_up=lambda: False)


def test_no_engine_is_asked_for_when_the_environment_names_all_three():
    chosen_modes(ALL, engine_is_up=lambda: pytest.fail("asked"))


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p@h:1/postgres", "postgresql://u:p@h:1/other"),
        ("postgresql://h/a?sslmode=require", "postgresql://h/other?sslmode=require"),
        ("postgresql://h", "postgresql://h/other"),
    ],
)
def test_a_database_url_is_pointed_elsewhere_on_the_same_server(url, expected):
    assert with_database(url, "other") == expected


@pytest.mark.parametrize("name", ["Upper", "with-dash", 'quote"', "1digit", "", "x" * 64])
def test_a_database_name_that_needs_quoting_is_refused_before_anything_connects(name):
    with pytest.raises(ValueError, match="not a plain database name"):
        create_database("postgresql://127.0.0.1:1/postgres", name)


def test_a_cluster_id_is_sixteen_bytes_and_no_option():
    made = {kafka.cluster_id() for _ in range(200)}
    assert len(made) == 200
    assert all(len(identifier) == 22 and not identifier.startswith("-") for identifier in made)


def test_the_broker_never_makes_topics_by_itself_and_listens_on_loopback_only(tmp_path):
    lines = kafka.server_properties(data=tmp_path, port=1, controller_port=2).splitlines()
    assert "auto.create.topics.enable=false" in lines
    assert "listeners=PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2" in lines
