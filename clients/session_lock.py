"""session-lock for Python 3.8 or later, standard library only: copy this file into the bot."""
import json, os, secrets, sys, threading, time
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

SERVER = urlsplit(os.environ.get("SESSION_LOCK_URL") or "http://127.0.0.1:7099")
CONNECTION = {"http": HTTPConnection, "https": HTTPSConnection}[SERVER.scheme]
HEADERS = {"Authorization": f"Bearer {os.environ.get('SESSION_LOCK_API_TOKEN', '')}"}
# The field of each answer that says yes or no.
VERDICTS = {"acquire": "granted", "renew": "renewed", "commit": "committed", "release": "released"}
LONGEST_PAUSE = 5  # s, if a gateway's Retry-After is longer

def now():
    """Also counts the time in which the machine is suspended, where a clock does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()

class Lease:
    """One attempt at one conversation. A thread renews the lease until the release."""

    def __init__(self, id_device, id_prospect, message_id=None, wait_ms=0, ttl_ms=30_000):
        owner_token = f"{secrets.randbelow(10**20):020}"
        self._session = dict(id_device=id_device, id_prospect=id_prospect, owner_token=owner_token)
        self._message_id, self._wait_ms, self._ttl_ms = message_id, int(wait_ms), int(ttl_ms)
        self._expires, self._released = 0.0, threading.Event()

    def acquire(self):
        """If the lease is lost before a late answer is here, the answer is "held"."""
        self.answer, sent = self._ask("acquire", self._message_id, self._wait_ms, ttl_ms=self._ttl_ms)
        if self.answer["granted"]:
            self._expires = sent + self.answer.get("remaining_ms", 0) / 1000
            # A late answer, such as after a wait, does not say when the lease began: renew it.
            if now() - sent > self._ttl_ms / 10_000:
                renewed = self.renew()
                if not renewed["renewed"]:
                    self.answer = dict(granted=False, reason="held", remaining_ms=0, waiters=0)
                    return self.answer
                self.answer["remaining_ms"] = renewed.get("remaining_ms", 0)
            threading.Thread(target=self._keep, daemon=True).start()
        return self.answer

    def _keep(self):
        while not self._released.wait(self._ttl_ms / 3000) and self.alive():
            with suppress(Exception):  # the server may be back before the lease ends
                self.renew()

    def renew(self):
        answer, sent = self._ask("renew", ttl_ms=self._ttl_ms)
        self._expires = sent + answer.get("remaining_ms", 0) / 1000
        return answer

    def alive(self):
        """If this is false, another worker may have the conversation: stop."""
        return now() < self._expires and not self._released.is_set()

    def commit(self, result=None, message_id=None):
        return self._ask("commit", message_id or self._message_id, result=result)[0]

    def release(self, result=None, message_id=None):
        """With the arguments of commit, it also records the message."""
        self._released.set()
        if result is not None:
            message_id = message_id or self._message_id
        return self._ask("release", message_id, result=result)[0]

    def __enter__(self):
        self.acquire()
        return self

    def __exit__(self, *_):
        if self.answer["granted"] and not self._released.is_set():
            self.release()

    def _ask(self, operation, message_id=None, wait_ms=0, **fields):
        """Repeats the same body, and so the same owner token, until the server answers yes or no. Also
        returns when it sent what is answered."""
        fields = {**self._session, **fields, "message_id": message_id, "wait_ms": wait_ms or None}
        fields = {name: value for name, value in fields.items() if value is not None}
        body = json.dumps(fields, ensure_ascii=False).encode()  # a result has 512 bytes at most
        retry_after = None
        for pause in 0, 0.2, 0.5, 1, 2, 4:
            time.sleep(pause if retry_after is None else retry_after)
            retry_after, sent = None, now()
            try:
                with closing(CONNECTION(SERVER.netloc, timeout=wait_ms / 1000 + 10)) as connection:
                    connection.request("POST", f"{SERVER.path.rstrip('/')}/v1/{operation}", body, HEADERS)
                    response = connection.getresponse()
                    status, text = response.status, response.read()
                problem = f"{status} {text.decode(errors='replace').strip()}"
                if response.headers.get("Retry-After", "").isdecimal():
                    retry_after = min(float(response.headers["Retry-After"]), LONGEST_PAUSE)
                if status in (200, 409):
                    with suppress(ValueError, AttributeError):  # a gateway's page
                        answer = json.loads(text)
                        if answer.get(VERDICTS[operation]) is (status == 200):
                            return answer, sent
                elif status < 500:
                    raise ValueError(f"session-lock: {problem}")
            except (OSError, HTTPException) as error:
                problem = error
        raise ConnectionError(f"session-lock does not answer: {problem}")

if __name__ == "__main__":  # takes acquire, renew, alive, "commit r-17", release and "release r-17" from stdin
    lease = Lease(*sys.argv[1:])
    for method, *arguments in map(str.split, sys.stdin):
        print(json.dumps(getattr(lease, method)(*arguments)), flush=True)
