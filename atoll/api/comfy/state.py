"""What the ComfyUI door keeps between requests: sockets, user files, and a memory of records."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from atoll.api.comfy.cleared_history import ClearedHistory
from atoll.api.comfy.job_record import RecordBook
from atoll.api.comfy.log_tail import LogTail
from atoll.api.comfy.socket_hub import SocketHub
from atoll.api.comfy.user_files import UserFiles, UserSettings
from atoll.api.services import StudioServices


class ComfyDoor:
    """One of an app. Its files lie in `HOME/comfy`, and the folder is made when something is first put there."""

    def __init__(self, services: StudioServices) -> None:
        home = services.settings.home / "comfy"
        self.records = RecordBook(services)
        self.cleared = ClearedHistory(home / "history.json")
        self.settings = UserSettings(home / "settings.json")
        self.user_files = UserFiles(home / "user")
        self.hub = SocketHub(services)
        self.log = LogTail()


def _door_of(connection: HTTPConnection) -> ComfyDoor:
    door: ComfyDoor = connection.app.state.comfy
    return door


Door = Annotated[ComfyDoor, Depends(_door_of)]
