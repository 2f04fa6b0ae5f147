"""One session's record, and what its profile allows.

Says what a process of the session is started with, whether a turn may run, and what the record
is once a turn has begun or ended. Knows nothing of turns that wait or run, of the store or of how
a process works.
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from samovard.core.errors import Difference, Misconfigured, RequestInvalid, SessionNotFound
from samovard.core.events import Notice, TurnFinished, Usage
from samovard.core.process import Launch, Prompt
from samovard.core.records import PermissionPolicy, SessionKey, SessionRecord, Spec
from samovard.core.sessions.rate_limits import RateLimits
from samovard.core.turn.limits import Limits
from samovard.core.turn.turn import Disconnect
from samovard.core.turn.watchdog import Patience
from samovard.telemetry.facts import CallFacts, TurnFacts
from samovard.telemetry.recorder import Recorder

DEFAULT = "default"
LIMITED = 429  # the status of an API that takes no more requests for a while


@dataclass(frozen=True, slots=True)
class Profile:
    """What the core must know of a profile. Durations are in seconds.

    `models` are those that a session may choose besides `model`; `ask` whether its
    permissions are asked for, `allow_ask` whether it may choose that; `allow_rewrite`
    whether an answer may change a tool's input, `allow_raw_json` whether callers may see
    the agent's own lines; `max_agent_steps` the agent keeps by itself; `queue` how many
    turns may wait in it.
    """

    model: str = ""
    models: tuple[str, ...] = ()
    append_system_prompt: str = ""
    ask: bool = False
    allow_ask: bool = False
    allow_rewrite: bool = False
    allow_raw_json: bool = False
    permission_timeout: float = 5 * 60.0
    turn_timeout: float = 30 * 60.0
    max_agent_steps: int | None = None
    max_cost_usd: float | None = None
    patience: Patience = field(default_factory=Patience)
    queue: int = 1
    session_ttl: float = 30 * 24 * 3600.0


#: Stands for a profile that is no longer configured: its sessions can be read and closed.
REMOVED = Profile()


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """A request to run one turn. `spec` is None if the session must exist already.

    `sender` stands for the credential that it came with; it is compared and no more.
    """

    key: SessionKey
    prompt: Prompt
    digest: bytes
    spec: Spec | None = None
    on_disconnect: Disconnect = Disconnect.INTERRUPT
    limits: Limits = field(default_factory=Limits)
    sender: object = None


@dataclass(frozen=True, slots=True)
class Clocks:
    """The wall clock, in seconds since the epoch, and a monotonic one."""

    wall: Callable[[], float]
    monotonic: Callable[[], float]


@dataclass(eq=False, slots=True)
class Conversation:
    """One session's record and profile. `created`: the store has it.

    `anew`: it starts over, and no turn has told so yet.
    """

    record: SessionRecord
    profile: Profile
    clocks: Clocks
    rate_limits: RateLimits
    created: bool
    anew: bool = False

    @property
    def model(self) -> str:
        """The model that was chosen for it."""
        return self.record.spec.model or self.profile.model

    def exists(self) -> bool:
        """Tells whether the session was created."""
        return self.created

    def facts(self, recorder: Recorder, call: CallFacts) -> TurnFacts:
        """Begins what is told of the turn that a call makes."""
        spec, ids = self.record.spec, (*self.record.key, call.turn_id)
        return TurnFacts(
            recorder, call, *ids, profile=spec.profile, model=self.model, labels=spec.labels
        )

    def launch(self) -> Launch:
        """Says what a process of the session is started with now."""
        spec = self.record.spec
        parts = (self.profile.append_system_prompt, spec.append_system_prompt)
        return Launch(
            process_id=uuid.uuid4().hex,
            tenant=self.record.key.tenant,
            profile=spec.profile,
            home=self.record.home,
            agent_session=self.record.agent_session,
            resume=self.record.prompted,
            seen=self.record.finished,
            model=self.model,
            append_system_prompt="\n\n".join(part for part in parts if part),
            ask=self.asks(),
            metered=self.profile.max_cost_usd is not None,
        )

    def asks(self) -> bool:
        """Tells whether the agent asks before it uses a tool that needs permission."""
        policy = self.record.spec.permission_policy
        if policy is PermissionPolicy.UNSPECIFIED:
            return self.profile.ask
        return policy is PermissionPolicy.ASK and (self.profile.ask or self.profile.allow_ask)

    def limits(self, asked: Limits) -> Limits:
        """Gives the bounds of a turn that samovard must keep: the agent keeps its profile's
        steps.
        """
        profile = self.profile
        own = Limits(profile.turn_timeout, profile.max_agent_steps, profile.max_cost_usd)
        bounds = asked.within(own)
        if bounds.steps == own.steps:
            return Limits(bounds.timeout, None, bounds.cost_usd)
        return bounds

    def prompt(self, asked: Prompt) -> Prompt:
        """Gives a prompt whose turn tells no more than the profile allows."""
        allowed = self.profile.allow_raw_json
        raw = asked.options.raw_json and allowed, allowed
        if raw == (asked.options.raw_json, asked.options.raw_unrecognized):
            return asked
        options = replace(asked.options, raw_json=raw[0], raw_unrecognized=raw[1])
        return replace(asked, options=options)

    def admit(self) -> None:
        """Raise `Misconfigured` (session-blocked, or options-refused without its profile) if
        no turn may run here, `QuotaExceeded` while the model's API is known to refuse.
        """
        if self.record.blocked:
            raise Misconfigured("the session is blocked; close it", cause="session-blocked")
        if self.profile is REMOVED:
            raise Misconfigured("the session's profile is gone", cause="options-refused")
        refusal = self.rate_limits.refusal(self.record.key.tenant, self.model)
        if refusal is not None:
            raise refusal

    def begun(self, traced: str) -> SessionRecord:
        """Gives the record as it is once another turn has begun, that stands in this trace."""
        now = self.clocks.wall()
        return replace(
            self.record,
            prompted=True,
            turn_count=self.record.turn_count + 1,
            traced=traced,
            update_time=now,
            expire_time=now + self.profile.session_ttl,
        )

    def over(self, usage: Usage) -> SessionRecord:
        """Return the record as it is once a turn has ended that used so much."""
        now = self.clocks.wall()
        return replace(
            self.record,
            usage=self.record.usage + usage,
            update_time=now,
            expire_time=now + self.profile.session_ttl,
        )

    def take(self, record: SessionRecord) -> None:
        """Takes a record made earlier. What blocked the session meanwhile still does."""
        self.record = replace(record, blocked=record.blocked or self.record.blocked)

    def keep(self) -> None:
        """Record that the agent has a transcript: from now on a missing one is lost."""
        self.record = replace(self.record, finished=True)

    def start_over(self) -> None:
        """Let the agent begin a new transcript: it never had one."""
        self.anew = True
        self.record = replace(self.record, prompted=False, agent_session=str(uuid.uuid4()))

    def anew_notices(self) -> list[Notice]:
        """Return what the next turn tells of a start over, once."""
        anew, self.anew = self.anew, False
        told = "the agent had kept nothing of the conversation, which begins anew"
        return [Notice("started-over", told)] if anew else []

    def heard(self, report: TurnFinished) -> None:
        """Takes note of what a report says that concerns later turns."""
        if report.upstream_status == LIMITED and report.upstream_retry_delay is not None:
            tenant = self.record.key.tenant
            self.rate_limits.limited(tenant, self.model, report.upstream_retry_delay)

    def block(self) -> None:
        """Let no turn run any more."""
        self.record = replace(self.record, blocked=True)


def differences(asked: Spec, given: Spec) -> list[Difference]:
    """Return the fields that are set in one spec and differ in the other.

    The values are those of names: texts and labels are their author's.
    """
    found = [
        Difference(f"spec.{name}", (getattr(given, name), getattr(asked, name)))
        for name in ("profile", "model")
        if getattr(asked, name) not in ("", getattr(given, name))
    ]
    if asked.append_system_prompt not in ("", given.append_system_prompt):
        found.append(Difference("spec.append_system_prompt"))
    if asked.permission_policy not in (PermissionPolicy.UNSPECIFIED, given.permission_policy):
        policies = _policy(given.permission_policy), _policy(asked.permission_policy)
        found.append(Difference("spec.permission_policy", policies))
    if asked.labels not in ({}, given.labels):
        found.append(Difference("spec.labels"))
    return found


def _policy(policy: PermissionPolicy) -> str:
    """Return a permission policy as settings spell it; empty for none."""
    return policy.name.lower() if policy else ""


def begun(
    request: TurnRequest, profiles: Mapping[str, Profile], default: str, now: float
) -> tuple[Profile, SessionRecord]:
    """Return the profile and the record of a session that a request makes.

    Raise `SessionNotFound` if it may not make one, `RequestInvalid` if none of its kind.
    """
    spec = request.spec or Spec()
    if request.spec is None and request.key.session != DEFAULT:
        raise SessionNotFound
    name = spec.profile or default
    profile = profiles.get(name)
    if profile is None:
        raise RequestInvalid(("spec.profile", "no such profile"))
    _check(spec, profile)
    return profile, SessionRecord(
        key=request.key,
        spec=replace(spec, profile=name),
        home=uuid.uuid4().hex,
        agent_session=str(uuid.uuid4()),
        create_time=now,
        update_time=now,
        expire_time=now + profile.session_ttl,
    )


def _check(spec: Spec, profile: Profile) -> None:
    if spec.model and spec.model not in (profile.model, *profile.models):
        raise RequestInvalid(("spec.model", "not allowed by the profile"))
    if spec.permission_policy is PermissionPolicy.ASK and not (profile.ask or profile.allow_ask):
        raise RequestInvalid(("spec.permission_policy", "not allowed by the profile"))
