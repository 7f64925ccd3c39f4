"""Who acts: the first argument of every service call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from core.kernel.errors import PermissionDenied

Role = Literal["admin", "member"]

# What a member of a project may do in it. An admin may do everything.
_MEMBER_PERMISSIONS = frozenset(
    {
        "project:read",
        "model:read",
        "model:create",
        "model:update",
        "model:delete",
        "deployment:read",
        "deployment:create",
        "deployment:update",
        "deployment:delete",
        "key:read",
        "key:create",
        "key:delete",
        "block:read",
        "cache:read",
        "guardrail:read",
        "limit:read",
        "batch:read",
        "batch:cancel",
        "job:read",
        "job:cancel",
        "job:retry",
        "metrics:read",
        "price:read",
        "provider:read",
        "playground:use",
        "simulation:read",
        "simulation:create",
        "simulation:update",
        "simulation:delete",
    }
)


@dataclass(frozen=True)
class Actor:
    """A person, the command line, or Bud itself.

    Attributes:
        user_id: `usr_…`; `cli` for the operator's shell and `system` for background work.
        name: What the audit log shows, such as an e-mail address.
        tenant_id: The tenant whose data this actor can reach.
        role: The tenant-wide role; `admin` is allowed everything in every project.
        projects: The role in each project the actor is a member of.
    """

    user_id: str
    name: str
    tenant_id: str
    role: Role = "member"
    projects: Mapping[str, Role] = field(default_factory=dict)

    @classmethod
    def system(cls, tenant_id: str = "ten_default") -> Actor:
        """Bud itself: migrations, reconcilers, ingestion."""
        return cls("system", "Bud", tenant_id, "admin")

    @property
    def is_admin(self) -> bool:
        """Whether this actor administers the whole tenant."""
        return self.role == "admin"

    def may(self, permission: str, project_id: str | None = None) -> bool:
        """Whether `permission` is granted, in `project_id` or in the tenant when None."""
        if self.is_admin:
            return True
        if project_id is None:
            return False
        role = self.projects.get(project_id)
        return role == "admin" or (role == "member" and permission in _MEMBER_PERMISSIONS)

    def require(self, permission: str, project_id: str | None = None) -> None:
        """Raise PermissionDenied unless `permission` is granted."""
        if not self.may(permission, project_id):
            where = f" in project {project_id}" if project_id else ""
            raise PermissionDenied(
                f"{self.name} may not do this ({permission}){where}.",
                remedy="Ask an admin of the project for the role that allows it.",
            )
