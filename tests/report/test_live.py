"""The page that is served while a sweep runs."""

import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest
from support.made_store import MadeStore

from bnft.common.errors import InputError
from bnft.report import live
from bnft.report.live import Live, server
from bnft.runs.store import Store


@pytest.fixture
def made(tmp_path: Path) -> MadeStore:
    """Two rows that are done, and one that has not begun."""
    found = MadeStore(Store(tmp_path / "multirun"), epochs=2)
    found.add(("normal", "bn_params")).add(("adv",), done=False).sweep()
    return found


@pytest.fixture
def address(made: MadeStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(live, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(live, "MOST_SHARE", 0)
    running, address = server(Live(made.store))
    thread = threading.Thread(target=running.serve_forever, args=(0.02,))
    thread.start()
    yield address
    running.shutdown()
    thread.join()
    running.server_close()


def got(address: str, **headers: str) -> str:
    with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=60) as answer:
        return str(answer.read().decode())


def refused(address: str, **headers: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as error:
        got(address, **headers)
    return error.value.code


def test_new_rows_appear_and_the_store_is_only_read(made: MadeStore, address: str) -> None:
    before = {file: file.stat().st_mtime_ns for file in made.store.root.rglob("*")}
    page = got(address)
    version = got(f"{address}version")
    assert f'data-version="{version}"' in page and got(f"{address}version") == version
    states = re.findall(r'<tr><td>([^<]+)<br>.*?<td class="text">([a-z ]+)</td>', page)
    assert states == [("NORMAL", "done"), ("BN PARAMS", "done"), ("ADV", "not begun")]
    curves = page.partition('id="live-training"')[2].partition("</figure>")[0]
    assert "NORMAL" in curves and "BN PARAMS" in curves and "ADV" not in curves
    assert 'id="live-figure1"' in page and "connect-src 'self'" in page
    assert {file: file.stat().st_mtime_ns for file in made.store.root.rglob("*")} == before
    made.add(("adv",))
    assert got(f"{address}version") != version
    assert ("ADV", "done") in re.findall(r'<tr><td>([^<]+)<br>.*?<td class="text">([a-z ]+)</td>', got(address))


def test_only_who_knows_the_address_on_this_machine_reads_it(address: str) -> None:
    host = address.split("/")[2]
    assert host.startswith("127.0.0.1:")
    assert refused(f"http://{host}/") == refused(f"http://{host}/guess/version") == 404
    assert refused(address, Host="example.org") == 404, "another name for this machine (DNS rebinding)"
    assert refused(f"{address}../../etc/passwd") == 404
    connection = HTTPConnection(host, timeout=60)
    connection.request("POST", f"/{address.split('/')[3]}/", b"x")
    assert connection.getresponse().status == 501


def test_without_a_sweep_there_is_nothing_to_serve(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="must be a folder with sweeps"):
        Live(Store(tmp_path))
