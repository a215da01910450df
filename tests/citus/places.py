"""Clients on the servers of the cluster, and a server that does not answer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection

from channels_out.kinds import Channel
from conversations.models import ChannelAccount, Client
from conversations.services.tenants import api_keys
from tests import databases, factories
from tests.conftest import Door

ONLY_IN_CLUSTER = [
    pytest.mark.citus,
    pytest.mark.skipif(
        not os.environ.get(databases.CLUSTER),
        reason=f"{databases.CLUSTER} names no coordinator of a Citus cluster, so these are left out",
    ),
]
CLOSED = 1  # a port at which nobody listens

_SERVER_OF = """
    SELECT n.nodeport FROM pg_dist_placement p JOIN pg_dist_node n USING (groupid)
    WHERE p.shardid = get_shard_id_for_distribution_column('contacts'::regclass, %s) AND n.noderole = 'primary'"""


def server_of(client: Client) -> int:
    """The port of the client's server."""
    with connection.cursor() as cursor:
        cursor.execute(_SERVER_OF, [str(client.pk)])
        [(port,)] = cursor.fetchall()
    return int(port)


def shop_of(name: str) -> Client:
    """A client with an offline assistant and a sandbox account on every channel."""
    client: Client = factories.ClientFactory(name=name, sub_domain=name)
    factories.AssistantFactory(client=client, key="ada")
    ChannelAccount.objects.bulk_create(factories.SandboxFactory.build(client=client, channel=each) for each in Channel)
    return client


def door_of(client: Client) -> Door:
    """The client's programs."""
    return Door(client, api_keys.create_api_key(client, "tests")[1])


def on_two_servers() -> tuple[Client, Client]:
    """Two clients, each on a server of its own."""
    first = shop_of("here")
    for number in range(50):
        second = factories.ClientFactory(sub_domain=f"there-{number}")
        if server_of(second) != server_of(first):
            factories.AssistantFactory(client=second, key="ada")
            ChannelAccount.objects.bulk_create(
                factories.SandboxFactory.build(client=second, channel=each) for each in Channel
            )
            return first, second
        second.delete()
    raise AssertionError("All clients are on one server.")


@contextmanager
def away(client: Client) -> Iterator[None]:
    """The client's server refuses connections meanwhile, as one does whose PostgreSQL is stopped.

    Needs a role that may update `pg_dist_node`: a superuser, or one to whom that was granted.
    """
    port = server_of(client)
    _name_port(port, CLOSED)
    try:
        yield
    finally:
        _name_port(CLOSED, port)


def _name_port(before: int, after: int) -> None:
    connection.close()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE pg_dist_node SET nodeport = %s WHERE nodeport = %s", [after, before])
    connection.close()
