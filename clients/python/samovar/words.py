"""How errors and foreign text are put for a person.

Knows the client's errors. Knows nothing of terminals.
"""

from samovar.errors import CallBroken, CredentialInvalid, SamovarError, TranscriptLost

#: Control characters, C0 and C1, but line feeds and tabs: a terminal would obey them.
_CONTROLS = {n: None for n in (*range(32), *range(127, 160)) if chr(n) not in "\n\t"}


def said(error: SamovarError, target: str) -> str:
    """Says in one line what went wrong and what to do."""
    if isinstance(error, CallBroken) and error.code.name == "UNAVAILABLE":
        if error.proxy:
            return clean_line(f"{target}: {error}; set no_proxy to go past it")
        return f'no samovard answers at {target}: start one with "samovard serve"'
    if isinstance(error, CredentialInvalid):
        return "the credential is not valid: set --api-key or SAMOVAR_API_KEY"
    cause = f" ({error.cause})" if error.cause else ""
    retry = f"; try again in {error.retry_delay:.1f} s" if error.retry_delay else ""
    lost = "; close the session or begin a new one" if isinstance(error, TranscriptLost) else ""
    return clean_line(f"{error}{cause}{retry}{lost}")


def clean(text: str) -> str:
    """Gives a text without what a terminal would obey."""
    return text.translate(_CONTROLS)


def clean_line(text: str) -> str:
    """Gives a text as one line without what a terminal would obey."""
    return clean(" ".join(text.split()))
