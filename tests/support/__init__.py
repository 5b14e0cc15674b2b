"""What tests share: fakes, stand-ins and the files they write. A test file imports from here, never from another."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
