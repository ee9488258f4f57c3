"""The OpenAI-compatible protocol: one request for one reply, and errors that say what to do without giving the key away."""

import os
from ipaddress import ip_address
from urllib.parse import urlsplit

import openai

from rlphf.errors import InputError
from rlphf.evaluate.judges.replies import Messages, Reply
from rlphf.settings_evaluation import LLMJudge

# A server on this machine asks for no key, but the client wants one.
NO_KEY = "none"
FAILS = "the server fails; the replies so far are kept, run again to go on"
ADVICE = {
    400: "the server does not accept the request; check evaluation.llm.model and max_tokens",
    401: "the server does not accept the key; check the environment variable {variable}",
    403: "the key may not use this; check the environment variable {variable} and evaluation.llm.model",
    404: "the server has no such address or model; check evaluation.llm.base_url and model",
    429: "the server is too busy or a quota is used up; the replies so far are kept, run again to go on",
}


def is_loopback(url: str) -> bool:
    """Whether an address is this machine's own."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def key(settings: LLMJudge) -> str:
    """Return the API key from its environment variable; raise InputError if it is unset and the server is not this machine."""
    value = os.environ.get(settings.key_variable, "").strip()
    if not value:
        if is_loopback(settings.base_url):
            return NO_KEY
        raise InputError(f"environment variable {settings.key_variable}: set it to the API key of {settings.base_url}")
    if not value.isascii() or not value.isprintable() or " " in value:
        raise InputError(f"environment variable {settings.key_variable}: holds no usable key; it has to be printable ASCII")
    return value


class Client:
    """A judge's server; may be used by several threads at once."""

    def __init__(self, settings: LLMJudge):
        """Connect to nothing yet; raise InputError when a key is needed and missing."""
        self.settings, self._key = settings, key(settings)
        # Proxies of the environment are not for this machine.
        http = openai.DefaultHttpxClient(trust_env=False) if is_loopback(settings.base_url) else None
        self._openai = openai.OpenAI(
            api_key=self._key,
            base_url=settings.base_url,
            timeout=settings.timeout,
            max_retries=settings.max_retries,
            http_client=http,
        )

    def close(self) -> None:
        """Close all connections."""
        self._openai.close()

    def ask(self, messages: Messages) -> tuple[Reply, int]:
        """Return the reply to messages, and how many further tries it took.

        The client tries again, with growing pauses, after errors of the connection and statuses 408, 409, 429 and 5xx. Raises
        InputError for what remains. The server's own words are not repeated: they may hold the key.
        """
        settings, where = self.settings, f"judge at {self.settings.base_url}"
        try:
            raw = self._openai.chat.completions.with_raw_response.create(
                model=settings.model,
                messages=messages,  # type: ignore[arg-type]
                temperature=settings.temperature,
                max_tokens=settings.max_tokens,
            )
            done = raw.parse()
        except openai.APIStatusError as error:
            status = error.status_code
            advice = ADVICE.get(status, FAILS if status >= 500 or status in (408, 409) else ADVICE[400])
            raise InputError(f"{where}: status {status}: {advice.format(variable=settings.key_variable)}") from None
        except openai.APIConnectionError as error:
            fault = "does not reply in time" if isinstance(error, openai.APITimeoutError) else "cannot be reached"
            advice = "start it or correct evaluation.llm.base_url; the replies so far are kept, run again to go on"
            raise InputError(f"{where}: {fault}; {advice}") from None
        except (openai.OpenAIError, ValueError) as error:
            raise InputError(f"{where}: its reply cannot be read ({type(error).__name__}); is it OpenAI-compatible?") from None
        try:
            text, usage = done.choices[0].message.content or "", done.usage
            tokens = (int(usage.prompt_tokens), int(usage.completion_tokens)) if usage else (0, 0)
        except (AttributeError, IndexError, TypeError):
            raise InputError(f"{where}: its reply holds no message; is it OpenAI-compatible?") from None
        if not usage and settings.max_cost is not None:
            raise InputError(f"{where}: does not count tokens, so that evaluation.llm.max_cost cannot be kept; set it to null")
        return Reply(self._clean(str(text)), *tokens), raw.retries_taken

    def _clean(self, text: str) -> str:
        """Return a reply as it is kept: without the key, should the server repeat it, and in characters that can be written."""
        text = text if self._key == NO_KEY else text.replace(self._key, "[key]")
        return text.encode("utf-8", "replace").decode()
