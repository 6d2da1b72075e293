"""Launchers over t2ipal/commands: `python jobs/NAME.py`; `jobs.NAME.main` for who imports one."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # where `_launch` lies
