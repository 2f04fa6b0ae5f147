"""What the scenarios need: a driver of each language that was asked for, and a service.

Without `--driver LANGUAGE=COMMAND`, which may be repeated, it is Python's. `python -m conformance`
builds the drivers and passes them.
"""

import shlex
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.program import Program, served

from conformance.driving import Client, Driver
from conformance.languages import LANGUAGES, build
from conformance.matrix import Recorder, property_of

#: The service's settings: what callers may choose, and the least time for what is bounded.
SETTINGS = {
    "SAMOVAR_PROFILES__DEFAULT__ALLOW_ASK": "true",
    "SAMOVAR_PROFILES__DEFAULT__ALLOW_REWRITE": "true",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--driver", action="append", default=[], help="LANGUAGE=COMMAND")
    parser.addoption("--matrix", help="a file for what became of each scenario, in JSON")


def pytest_configure(config: pytest.Config) -> None:
    file = config.getoption("--matrix", default=None)
    if file and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Recorder(Path(file)))


def pytest_itemcollected(item: pytest.Item) -> None:
    if (found := property_of(item)) is not None:
        item.user_properties.append(found)


def commands(config: pytest.Config) -> dict[str, list[str]]:
    """Return the command of each driver that was asked for."""
    given = dict(each.split("=", 1) for each in config.getoption("--driver", default=[]))
    given = given or {"python": shlex.join(build("python", Path()))}
    return {name: shlex.split(command) for name, command in given.items()}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each scenario with each driver, those of one language after another."""
    if "driver" in metafunc.fixturenames:
        asked = [name for name in LANGUAGES if name in commands(metafunc.config)]
        metafunc.parametrize("driver", asked, indirect=True, scope="session")


@pytest.fixture(scope="session")
def driver(request: pytest.FixtureRequest, root: Path) -> Iterator[Driver]:
    """Yield a driver of one language, which ends in order."""
    driver = Driver(request.param, commands(request.config)[request.param])
    yield driver
    assert driver.end() == 0


@pytest.fixture(scope="session")
def service(driver: Driver, root: Path) -> Iterator[Program]:
    """Yield a service on the fake agent, a program of its own, anew for each language.

    The scenarios name sessions and turns, which one language must not find made by another.
    """
    directory = Path(tempfile.mkdtemp(dir=root, prefix=""))
    with served(directory, variables=SETTINGS) as program:
        yield program
        assert program.end() == 0
    shutil.rmtree(directory)


@pytest.fixture
def client(driver: Driver, service: Program) -> Iterator[Client]:
    """Yield a client of the service."""
    with driver.client(service.address) as client:
        yield client
