"""What handlers are handed: the services of the app that they run in."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from atoll.api.services import StudioServices


def services_of(connection: HTTPConnection) -> StudioServices:
    services: StudioServices = connection.app.state.services
    return services


Services = Annotated[StudioServices, Depends(services_of)]
