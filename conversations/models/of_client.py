"""Rows of one client, and foreign keys between rows of the same client.

Whatever the ORM reads, writes or joins through them names the client too: PostgreSQL's keys of these tables begin with
`client_id`, and a database of several servers finds the server by it.
"""

from __future__ import annotations

from typing import Any, cast

from django.db import models
from django.db.models.fields.related_descriptors import (
    ForwardManyToOneDescriptor,
    ForwardOneToOneDescriptor,
    ReverseManyToOneDescriptor,
)
from django.db.models.fields.related_lookups import RelatedExact
from django.db.models.sql.where import AND, WhereNode
from django.utils.functional import cached_property

from conversations.models.client import Client
from memory.of_client import NamesClient


class OfClient(NamesClient):
    """A row of a client's. The client of a row that belongs to another is that row's (`SameClientKey`)."""

    client = models.ForeignKey(
        Client, on_delete=models.DO_NOTHING, related_name="+", db_constraint=False, db_index=False, editable=False
    )

    class Meta:
        abstract = True


class OfSession(OfClient):
    """A row below a conversation that a user of the copilot may see: it names the user whose session that is.

    So row-level security compares columns alone. As the client, the user is that of the row that this one belongs to.
    """

    login_id = models.IntegerField(null=True, editable=False)

    class Meta:
        abstract = True


class _TakesClient:
    """Assigning the row that another belongs to also assigns its client."""

    def __set__(self, instance: Any, value: Any) -> None:
        super().__set__(instance, value)  # type: ignore[misc]
        if value is not None:
            instance.client_id = value.client_id
            if isinstance(instance, OfSession):
                instance.login_id = value.login_id


class _ForwardKey(_TakesClient, ForwardManyToOneDescriptor):  # type: ignore[type-arg]
    pass


class _ForwardOneToOne(_TakesClient, ForwardOneToOneDescriptor):  # type: ignore[type-arg]
    pass


class _Reverse(ReverseManyToOneDescriptor):  # type: ignore[type-arg]
    """The rows that belong to a row, of its client."""

    @cached_property
    def related_manager_cls(self) -> Any:
        """Return the manager's class, whose queries name the client."""
        found: Any = super().related_manager_cls

        class Manager(found):  # type: ignore[misc]
            def _apply_rel_filters(self, queryset: Any) -> Any:
                return super()._apply_rel_filters(queryset).filter(client_id=self.instance.client_id)

        return Manager


class _SameClient:
    """A relation between rows of the same client; its constraint is written by a migration, for both columns."""

    related_accessor_class: Any = _Reverse

    def get_extra_descriptor_filter(self, instance: Any) -> dict[str, Any]:
        """Return the further condition of reading the row that `instance` belongs to."""
        return {"client_id": instance.client_id}

    def get_forward_related_filter(self, obj: Any) -> dict[str, Any]:
        """Return the condition of reading the row that belongs to `obj`."""
        return {**super().get_forward_related_filter(obj), "client_id": obj.client_id}  # type: ignore[misc]

    def get_extra_restriction(self, alias: str | None, related_alias: str | None) -> WhereNode | None:
        """Return the further condition of a join: both rows are of the same client."""
        field = cast("Any", self)
        if not (alias and related_alias):
            return None
        ours, theirs = (model._meta.get_field("client") for model in (field.model, field.related_model))
        same = ours.get_lookup("exact")(ours.get_col(related_alias), theirs.get_col(alias))
        return WhereNode([same], connector=AND)

    def deconstruct(self) -> Any:
        """Return the field as Django's own: for a migration it is no more."""
        name, _, args, kwargs = super().deconstruct()  # type: ignore[misc]
        return name, f"django.db.models.{type(self).__mro__[2].__name__}", args, kwargs


class _Exact(RelatedExact):
    """Equal to a row, and so of its client."""

    def __init__(self, lhs: Any, rhs: Any) -> None:
        self.client_id = getattr(rhs, "client_id", None) if isinstance(rhs, models.Model) else None
        super().__init__(lhs, rhs)

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        """Return the condition."""
        text, values = super().as_sql(compiler, connection)
        if self.client_id is None:
            return text, values
        client = self.lhs.target.model._meta.get_field("client")
        column, _ = compiler.compile(client.get_col(self.lhs.alias))
        return f"({text} AND {column} = %s)", [*values, client.get_db_prep_value(self.client_id, connection)]


class SameClientKey(_SameClient, models.ForeignKey):  # type: ignore[type-arg]
    """A foreign key to a row of the same client."""

    forward_related_accessor_class = _ForwardKey


class SameClientOneToOne(_SameClient, models.OneToOneField):  # type: ignore[type-arg]
    """A one-to-one relation with a row of the same client."""

    forward_related_accessor_class = _ForwardOneToOne
    related_accessor_class: Any = models.OneToOneField.related_accessor_class


for _key in (SameClientKey, SameClientOneToOne):
    _key.register_lookup(_Exact)
