"""The metadata service of an EC2 machine, by session tokens (IMDSv2).

Owns tokens and their renewal; does not know what is asked for.
"""

import os
import time
import urllib.error
import urllib.request
from http.client import HTTPException

from t2ipal.config import require

SERVICE = "http://169.254.169.254"
SERVICE_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
"""Where AWS's own tools look for another one."""
DISABLED_VARIABLE = "AWS_EC2_METADATA_DISABLED"
TOKEN_TTL_S = 21600
"""Six hours: the longest that the service grants."""
TIMEOUT_S = 2.0
"""For one reply: the service is in the machine itself."""


class Metadata:
    """Reads single values of this machine."""

    def __init__(self, url: str | None = None, ttl_s: int = TOKEN_TTL_S):
        """Asks nothing yet.

        Args:
            url: of the service; None: AWS_EC2_METADATA_SERVICE_ENDPOINT, else EC2's.
            ttl_s: for which a token is asked, 1 to 21600.
        """
        self.url = (url or os.environ.get(SERVICE_VARIABLE) or SERVICE).rstrip("/")
        require(
            self.url.startswith(("http://", "https://")),
            f"The metadata service must be http://host, got {self.url!r}.",
        )
        self.ttl_s = ttl_s
        self._token, self._renew_at = "", 0.0
        # No proxy of the environment: another machine would answer, and learn the token.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def read(self, path: str) -> str | None:
        """A value below /latest/meta-data/; None where the machine has none.

        Raises:
            OSError: nobody answers, or the service refuses.
        """
        if time.monotonic() >= self._renew_at:
            self._renew()
        try:
            try:
                return self._get(path)
            except urllib.error.HTTPError as error:
                if error.code != 401:
                    raise
                self._renew()  # it has ended early, as after a restart of the service
                return self._get(path)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def _get(self, path: str) -> str:
        headers = {"X-aws-ec2-metadata-token": self._token}
        return self._ask("GET", f"/latest/meta-data/{path}", headers)

    def _renew(self) -> None:
        headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(self.ttl_s)}
        asked_at = time.monotonic()
        self._token = self._ask("PUT", "/latest/api/token", headers)
        self._renew_at = asked_at + 0.8 * self.ttl_s

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> str:
        request = urllib.request.Request(self.url + path, headers=headers, method=method)
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as reply:
                return reply.read().decode()
        except HTTPException as error:  # no OSError, as where it breaks off
            raise OSError(f"{self.url} does not answer as HTTP: {error!r}") from error
