"""A file system of a few pages, for what comes of one that is full or for reading."""

import os
import shutil
import subprocess

import pytest


class Disk:
    """Of 4 MB at first. It takes root, as in a container: else a test is skipped."""

    page = os.sysconf("SC_PAGESIZE")

    def __init__(self, path):
        self.path = path
        path.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", path]
        if shutil.which("mount") is None or subprocess.run(mount).returncode:
            pytest.skip("mounting a small file system takes root")

    @property
    def used(self) -> int:
        """Pages that are taken."""
        now = os.statvfs(self.path)
        return (now.f_blocks - now.f_bfree) * now.f_frsize // self.page

    def limit(self, pages: int) -> None:
        """Has so many pages, or as many as are taken."""
        self._remount(f"rw,size={max(pages, self.used, 1) * self.page}")

    def read_only(self) -> None:
        self._remount("ro")

    def unmount(self) -> None:
        subprocess.run(["umount", self.path], check=True)

    def _remount(self, options: str) -> None:
        command = ["mount", "-o", f"remount,{options}", self.path]
        subprocess.run(command, check=True)
