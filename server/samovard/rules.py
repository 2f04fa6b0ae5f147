"""What the settings mean for the core: limits of the pool, bounds of streams, rules of profiles."""

from collections.abc import Collection

from samovard.core.pool.queue import PoolLimits
from samovard.core.sessions.conversation import SessionRules
from samovard.core.turn.turn import StreamBounds
from samovard.core.turn.watchdog import Patience
from samovard.settings import Server as Edge
from samovard.settings import Settings
from samovard.state_lock import CannotStart
from samovard.tenant_bounds import TenantBounds


def pool_limits(settings: Settings, tenants: TenantBounds, stored: Collection[str]) -> PoolLimits:
    """Return the limits of the pool; `stored` is the tenants that have sessions in the store.

    Raise `CannotStart` if there are more of them than may be served.
    """
    most = settings.pool.max_tenants
    if most is not None and len(stored) > most:
        has = f"{settings.directory} has sessions of {len(stored)} tenants"
        hint = "close them, or use another state.directory"
        raise CannotStart(f"{has}, and pool.max_tenants is {most}: {hint}")
    return PoolLimits(
        slots=settings.slots,
        queue=settings.queue_limit,
        max_starting=settings.max_starting,
        idle_ttl=settings.pool.idle_ttl,
        max_wait=settings.pool.max_wait,
        tenant=tenants.limits,
        max_tenants=most,
        tenants=frozenset(stored),
    )


def stream_bounds(edge: Edge) -> StreamBounds:
    """Return the bounds of a turn's streams."""
    return StreamBounds(
        edge.event_hold_bytes, edge.reader_bytes, edge.reader_timeout, edge.max_turn_streams
    )


def session_rules(settings: Settings) -> dict[str, SessionRules]:
    """Return the rules of every profile, by name."""
    return {
        name: SessionRules(
            model=profile.model,
            models=profile.models,
            append_system_prompt=profile.append_system_prompt,
            ask=profile.permission_policy == "ask",
            allow_ask=profile.allow_ask,
            allow_rewrite=profile.allow_rewrite,
            permission_timeout=profile.permission_timeout,
            allow_raw_json=profile.allow_raw_json,
            turn_timeout=profile.turn_timeout,
            max_agent_steps=profile.max_agent_steps,
            max_cost_usd=profile.max_cost_usd,
            patience=Patience(
                profile.first_timeout,
                profile.stream_timeout,
                profile.tool_timeout,
                profile.compact_timeout,
            ),
            queue=profile.session_queue,
            session_ttl=profile.session_ttl,
            max_disk=profile.max_disk,
        )
        for name, profile in settings.profiles.items()
    }
