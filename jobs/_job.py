"""What every job shares: errors a user can act on end it with one line and exit code 2."""

import sys
from collections.abc import Callable
from typing import Any


def run_job(main: Callable[[], Any]) -> None:
    """Runs a job's `main`; for the `if __name__ == "__main__"` of the file."""
    try:
        main()
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        sys.exit(130)
