"""The contract's causes for the reasons that the CLI gives when a turn fails.

Knows the words of the CLI and of the model's API, as claude 2.1.330 passes them on. Callers get our
own sentences; the original text goes to the operator, without what it repeats of the prompt.
"""

import re

from samovard.agent.frames import Result
from samovard.core.events import FailureCause as Cause

#: The sentence for the caller, by cause.
SENTENCES = {
    Cause.OTHER: "the agent failed",
    Cause.AUTHENTICATION: "the model's API refused the credential",
    Cause.PERMISSION: "the model's API refused access",
    Cause.BILLING: "the account at the model's API has no credit left or cannot be billed",
    Cause.RATE_LIMITED: "the model's API limits the rate of requests",
    Cause.OVERLOADED: "the model's API is overloaded",
    Cause.UPSTREAM: "the model's API failed",
    Cause.NETWORK: "the model's API could not be reached",
    Cause.INVALID_REQUEST: "the model's API refused the request",
    Cause.REQUEST_TOO_LARGE: "the request is too large for the model's API",
    Cause.CONTEXT_TOO_LONG: "the conversation is too long for the model and cannot be compacted",
    Cause.MODEL_NOT_FOUND: "the model does not exist or may not be used",
    Cause.RESULT_INVALID: "the agent gave no result of the form that was asked for",
}

# The CLI's `terminal_reason`.
_REASONS = {
    "blocking_limit": Cause.CONTEXT_TOO_LONG,
    "prompt_too_long": Cause.CONTEXT_TOO_LONG,
    "rapid_refill_breaker": Cause.CONTEXT_TOO_LONG,
    "structured_output_retry_exhausted": Cause.RESULT_INVALID,
}
# The CLI's own word for a failed call, where it says more than the status.
_WORDS = {
    "account_on_hold": Cause.BILLING,
    "billing_error": Cause.BILLING,
    "oauth_org_not_allowed": Cause.PERMISSION,
    "overloaded": Cause.OVERLOADED,
    "verification_required": Cause.PERMISSION,
}
# For a call without a status, which most often never reached the API.
_WORDS_ALONE = {
    "authentication_failed": Cause.AUTHENTICATION,
    "cloud_credential_error": Cause.AUTHENTICATION,
    "invalid_request": Cause.INVALID_REQUEST,
    "max_output_tokens": Cause.OTHER,
    "model_not_found": Cause.MODEL_NOT_FOUND,
    "rate_limit": Cause.RATE_LIMITED,
}
# The API's word for an error, where it says more than a status of 400 or 500.
_TYPES = {
    "authentication_error": Cause.AUTHENTICATION,
    "billing_error": Cause.BILLING,
    "overloaded_error": Cause.OVERLOADED,
    "permission_error": Cause.PERMISSION,
    "rate_limit_error": Cause.RATE_LIMITED,
    "request_too_large": Cause.REQUEST_TOO_LARGE,
}
_STATUSES = {
    401: Cause.AUTHENTICATION,
    402: Cause.BILLING,
    403: Cause.PERMISSION,
    404: Cause.MODEL_NOT_FOUND,
    407: Cause.NETWORK,  # a proxy's
    408: Cause.NETWORK,
    409: Cause.UPSTREAM,  # the API's own requests conflicted
    413: Cause.REQUEST_TOO_LARGE,
    429: Cause.RATE_LIMITED,
    529: Cause.OVERLOADED,
}
# The words of an error's text, and those that name something: letters with other characters.
_WORD = re.compile(r"[\w-]+")
_NAME = re.compile(r"(?=.*[^\W\d_])(?=.*[\d_-]).{6}")
_RUN = 16  # characters in a row
_LOOKED_AT = 1000  # of its characters; the operator is shown fewer
# Errors without a word of their own, neither the API's nor the CLI's.
_TEXTS = (
    (re.compile(r"^prompt is too long", re.IGNORECASE), Cause.CONTEXT_TOO_LONG),
    (
        re.compile(r"^(request|image|pdf)\b.{0,20} too large", re.IGNORECASE),
        Cause.REQUEST_TOO_LARGE,
    ),
    (re.compile(r"^API Error: 400 .*\bAPI usage limits\b"), Cause.BILLING),
    (re.compile(r"^API Error: 400 .*\borganization has been disabled\b"), Cause.PERMISSION),
)


def cause_of(result: Result, word: str) -> Cause:
    """Return why a turn failed.

    `word` is the CLI's word for the failed call, empty if it had none.
    """
    reason, status = result.terminal_reason or "", result.api_error_status or 0
    if reason in _REASONS:
        return _REASONS[reason]
    for text, cause in _TEXTS:
        if (status or reason == "api_error") and text.search(result.result):
            return cause
    if word in _WORDS:
        return _WORDS[word]
    if not status:
        alone = reason == "api_error"
        return _WORDS_ALONE.get(word, Cause.NETWORK) if alone else Cause.OTHER
    if status in _STATUSES:
        return _STATUSES[status]
    usual = Cause.INVALID_REQUEST if status < 500 else Cause.UPSTREAM
    return _TYPES.get(result.api_error_type or "", usual)


def before_prompt(text: str, prompt: str) -> str:
    """Return the CLI's error text up to where it repeats the prompt, as far as that is detectable.

    A name or a run of words that both contain counts as a repetition.
    """
    text = text[:_LOOKED_AT]
    for word in _WORD.finditer(text):
        run = text[word.start() : word.start() + _RUN]
        if (len(run) == _RUN and run in prompt) or (_NAME.match(word[0]) and word[0] in prompt):
            return text[: word.start()]
    return text
