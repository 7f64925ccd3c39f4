"""Guardrails, and answers that projects keep."""

import sqlalchemy as sa
from alembic import op

import core.kernel.database

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('guardrails',
    sa.Column('id', sa.String(length=40), nullable=False),
    sa.Column('tenant_id', sa.String(length=40), nullable=False),
    sa.Column('project_id', sa.String(length=40), nullable=False),
    sa.Column('name', sa.String(length=80), nullable=False),
    sa.Column('kind', sa.String(length=20), nullable=False),
    sa.Column('mode', sa.String(length=20), nullable=False),
    sa.Column('action', sa.String(length=20), nullable=False),
    sa.Column('applies_to', sa.String(length=20), nullable=False),
    sa.Column('budget_ms', sa.Double(), nullable=False),
    sa.Column('on_failure', sa.String(length=20), nullable=False),
    sa.Column('settings', sa.JSON(), nullable=False),
    sa.Column('sealed_credential', sa.Text(), nullable=False),
    sa.Column('set_at', core.kernel.database.UtcDateTime(timezone=True), nullable=False),
    sa.Column('set_by_name', sa.String(length=200), nullable=False),
    sa.PrimaryKeyConstraint('id', name=op.f('pk_guardrails')),
    sa.UniqueConstraint('project_id', 'name', name=op.f('uq_guardrails_project_id_name'))
    )
    with op.batch_alter_table('guardrails', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_guardrails_project_id'), ['project_id'], unique=False)

    op.create_table('response_caches',
    sa.Column('project_id', sa.String(length=40), nullable=False),
    sa.Column('tenant_id', sa.String(length=40), nullable=False),
    sa.Column('enabled', sa.Boolean(), nullable=False),
    sa.Column('ttl_s', sa.Integer(), nullable=False),
    sa.Column('max_mb', sa.Integer(), nullable=False),
    sa.Column('all_requests', sa.Boolean(), nullable=False),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.Column('set_at', core.kernel.database.UtcDateTime(timezone=True), nullable=False),
    sa.Column('set_by_name', sa.String(length=200), nullable=False),
    sa.PrimaryKeyConstraint('project_id', name=op.f('pk_response_caches'))
    )
    with op.batch_alter_table('response_caches', schema=None) as batch_op:
        batch_op.create_index(batch_op.f('ix_response_caches_tenant_id'), ['tenant_id'], unique=False)


def downgrade() -> None:
    with op.batch_alter_table('response_caches', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_response_caches_tenant_id'))

    op.drop_table('response_caches')
    with op.batch_alter_table('guardrails', schema=None) as batch_op:
        batch_op.drop_index(batch_op.f('ix_guardrails_project_id'))

    op.drop_table('guardrails')
