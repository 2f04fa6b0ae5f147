"""One session's record, and the rules of its profile.

A conversation decides how a process of the session is started and whether a turn may run, and
updates the record when a turn begins or ends. It does not depend on running turns, on the store
or on processes.
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from samovard.core.errors import Difference, Misconfigured, RequestInvalid, SessionNotFound
from samovard.core.events import Notice, TurnFinished, Usage
from samovard.core.process import Launch, Prompt
from samovard.core.records import PermissionPolicy, SessionKey, SessionRecord, Spec
from samovard.core.sessions.quotas import Quotas
from samovard.core.turn.limits import Budget, Limits
from samovard.core.turn.turn import Disconnect
from samovard.core.turn.watchdog import Patience
from samovard.telemetry.facts import CallFacts, TurnFacts
from samovard.telemetry.recorder import Recorder

DEFAULT = "default"
LIMITED = 429  # HTTP status: the model's API limits the rate of requests


@dataclass(frozen=True, slots=True)
class SessionRules:
    """The settings of a profile that the core needs. Durations are in seconds.

    `models` is the models that a session may choose besides `model`. `ask` is True if clients
    are asked for permissions, `allow_ask` if a session may choose that. `allow_rewrite` is True
    if an answer may change a tool's input, `allow_raw_json` if clients may see the agent's own
    lines. The agent itself enforces `max_agent_steps`. `queue` is how many turns may wait in a
    session, `max_disk` how many bytes of the disk it may take; None for no bound.
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
    max_disk: int | None = None


#: Stands for a profile that is no longer configured: its sessions can only be read and closed.
REMOVED = SessionRules()


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """A request to run one turn. `spec` is None if the session must exist already.

    `sender` identifies the credential of the request and is only compared. `patience` is for how
    many seconds the caller waits, None for ever.
    """

    key: SessionKey
    prompt: Prompt
    digest: bytes
    spec: Spec | None = None
    on_disconnect: Disconnect = Disconnect.INTERRUPT
    limits: Limits = field(default_factory=Limits)
    sender: object = None
    patience: float | None = None


@dataclass(frozen=True, slots=True)
class Clocks:
    """The wall clock, in seconds since the epoch, and a monotonic clock, in seconds."""

    wall: Callable[[], float]
    monotonic: Callable[[], float]


@dataclass(eq=False, slots=True)
class Conversation:
    """One session's record and profile. `created` is True if the session is stored.

    `anew` is True if it starts over with a new transcript and no turn has reported that yet.
    """

    record: SessionRecord
    profile: SessionRules
    clocks: Clocks
    quotas: Quotas
    created: bool
    anew: bool = False

    @property
    def model(self) -> str:
        """The model of the session: its spec's, or else its profile's."""
        return self.record.spec.model or self.profile.model

    @property
    def tenant(self) -> str:
        """The tenant of the session."""
        return self.record.key.tenant

    def budget(self) -> Budget:
        """Return the budget of a turn that is about to run."""
        return self.quotas.budget(self.tenant)

    def exists(self) -> bool:
        """Return True if the session was created."""
        return self.created

    def facts(self, recorder: Recorder, call: CallFacts) -> TurnFacts:
        """Return the telemetry of a new turn that a call begins."""
        spec, ids = self.record.spec, (*self.record.key, call.turn_id)
        return TurnFacts(
            recorder, call, *ids, profile=spec.profile, model=self.model, labels=spec.labels
        )

    def launch(self) -> Launch:
        """Return the parameters for a process of the session that is started now."""
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
            metered=self.profile.max_cost_usd is not None or self.quotas.metered(self.tenant),
            session=self.record.key.session,
        )

    def asks(self) -> bool:
        """Return True if the agent asks before it uses a tool that needs permission."""
        policy = self.record.spec.permission_policy
        if policy is PermissionPolicy.UNSPECIFIED:
            return self.profile.ask
        return policy is PermissionPolicy.ASK and (self.profile.ask or self.profile.allow_ask)

    def limits(self, asked: Limits) -> Limits:
        """Return the limits of a turn that samovard must enforce.

        The profile's number of steps is left out, because the agent itself enforces it.
        """
        profile = self.profile
        own = Limits(profile.turn_timeout, profile.max_agent_steps, profile.max_cost_usd)
        bounds = asked.within(own)
        if bounds.steps == own.steps:
            return Limits(bounds.timeout, None, bounds.cost_usd)
        return bounds

    def prompt(self, asked: Prompt) -> Prompt:
        """Return the prompt, with its event options restricted to those the profile allows."""
        allowed = self.profile.allow_raw_json
        raw = asked.options.raw_json and allowed, allowed
        if raw == (asked.options.raw_json, asked.options.raw_unrecognized):
            return asked
        options = replace(asked.options, raw_json=raw[0], raw_unrecognized=raw[1])
        return replace(asked, options=options)

    def admit(self) -> None:
        """Check that a turn may run.

        Raise `Misconfigured` (session-blocked) if the session is blocked, `Misconfigured`
        (options-refused) if its profile is no longer configured, and `QuotaExceeded` once the
        tenant has spent what it may today, or while the model's API is known to refuse requests.
        """
        if self.record.blocked:
            raise Misconfigured("the session is blocked; close it", cause="session-blocked")
        if self.profile is REMOVED:  # `is`: a configured profile may be equal to it
            raise Misconfigured("the session's profile is gone", cause="options-refused")
        self.quotas.check(self.tenant)
        refusal = self.quotas.upstream.refusal(self.tenant, self.model)
        if refusal is not None:
            raise refusal

    def begun(self, traced: str) -> SessionRecord:
        """Return the record after another turn has begun; `traced` is its trace position."""
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
        """Return the record after a turn with the given usage has ended."""
        now = self.clocks.wall()
        return replace(
            self.record,
            usage=self.record.usage + usage,
            update_time=now,
            expire_time=now + self.profile.session_ttl,
        )

    def take(self, record: SessionRecord) -> None:
        """Replace the record with one made earlier. A session blocked meanwhile stays blocked."""
        self.record = replace(record, blocked=record.blocked or self.record.blocked)

    def keep(self) -> None:
        """Record that the agent has a transcript: a missing transcript is lost from now on."""
        self.record = replace(self.record, finished=True)

    def start_over(self) -> None:
        """Choose a new transcript, because the agent never wrote the present one."""
        self.anew = True
        self.record = replace(self.record, prompted=False, agent_session=str(uuid.uuid4()))

    def anew_notices(self) -> list[Notice]:
        """Return the notice that the session started over, once after `start_over`."""
        anew, self.anew = self.anew, False
        told = "the agent had kept nothing of the conversation, which begins anew"
        return [Notice("started-over", told)] if anew else []

    def heard(self, report: TurnFinished) -> None:
        """Record what a report says about later turns: the rate limit of the model's API."""
        if report.upstream_status == LIMITED and report.upstream_retry_delay is not None:
            self.quotas.upstream.limited(self.tenant, self.model, report.upstream_retry_delay)

    def block(self) -> None:
        """Block the session: no further turn may run."""
        self.record = replace(self.record, blocked=True)

    def unblock(self) -> None:
        """Let turns run again."""
        self.record = replace(self.record, blocked=False)


def differences(asked: Spec, given: Spec) -> list[Difference]:
    """Return the fields that are set in `asked` and differ in `given`.

    Only names and policies have their values: texts and labels are private to their author.
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
    request: TurnRequest, profiles: Mapping[str, SessionRules], default: str, now: float
) -> tuple[SessionRules, SessionRecord]:
    """Return the profile and the record of a new session for a request.

    Raise `SessionNotFound` if the request may not create a session, `RequestInvalid` if its spec
    is not allowed.
    """
    spec = request.spec or Spec()
    # Only the default session is created implicitly: a mistyped name must not create another.
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
        home=uuid.uuid4().hex,  # random: a session created again must not find old files
        agent_session=str(uuid.uuid4()),
        create_time=now,
        update_time=now,
        expire_time=now + profile.session_ttl,
    )


def _check(spec: Spec, profile: SessionRules) -> None:
    if spec.model and spec.model not in (profile.model, *profile.models):
        raise RequestInvalid(("spec.model", "not allowed by the profile"))
    if spec.permission_policy is PermissionPolicy.ASK and not (profile.ask or profile.allow_ask):
        raise RequestInvalid(("spec.permission_policy", "not allowed by the profile"))
