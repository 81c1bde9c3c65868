"""What is relied on of Flower's internals, checked against the installed flwr."""

from dataclasses import fields
from importlib import import_module

import flwr
import pytest
from flwr.app import Error, Message, Metadata, RecordDict
from flwr.common.constant import ErrorCode as FlowerErrorCode
from flwr.common.constant import SType
from flwr.serverapp import Grid

from fedsec import flwr_apps, flwr_compat
from fedsec.errors import ConfigError
from fedsec.flwr_compat import Envelope
from fedsec.wire import headers, records


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the process its identity, and gives it back."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(flwr_compat.TaskIdentity, name, None)


def test_the_installed_flwr_is_the_one_whose_internals_are_known() -> None:
    """Fails on another flwr: then every test of this file must be thought through."""
    assert flwr.__version__.startswith("1.41."), "see fedsec/flwr_compat.py before raising this"
    flwr_compat.check_version()


@pytest.mark.parametrize("version", ["1.42.0", "1.4.1", "1.410.0", "2.0", "1.41"])
def test_another_flwr_is_refused(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flwr, "__version__", version)
    with pytest.raises(ConfigError, match=rf"works with flwr 1\.41\.\*, installed is {version}:"):
        flwr_compat.check_version()


def test_a_message_needs_the_identity_of_the_process() -> None:
    with pytest.raises(RuntimeError, match="run_id is not set"):
        Message(RecordDict(), 5, "train")
    flwr_compat.become(7, 1, 3)
    metadata = Message(RecordDict(), 5, "train", group_id="g", ttl=60.0).metadata
    assert (metadata.run_id, metadata.src_node_id, metadata.src_task_id) == (7, 1, 3)
    assert (metadata.dst_node_id, metadata.dst_task_id, metadata.group_id) == (5, None, "g")
    assert (metadata.message_id, metadata.reply_to_message_id) == ("", "")


def test_an_envelope_holds_all_that_flowers_metadata_holds() -> None:
    flwr_compat.become(7, 1, 3)
    message = Message(RecordDict(), 5, "train")
    known = {"reply_to_message_id" if f.name == "reply_to" else f.name for f in fields(Envelope)}
    assert {name.lstrip("_") for name in message.metadata.__dict__} - {"delivered_at"} == known
    parameters = Metadata.__init__.__code__.co_varnames[1:12]
    assert set(parameters) == known


@pytest.mark.parametrize("tasks", [(None, None), (1, None), (None, 2), (0, 0)])
def test_an_envelope_goes_into_a_message_and_comes_out(
    tasks: tuple[int | None, int | None],
) -> None:
    envelope = Envelope(
        "a" * 32, "b" * 32, 7, 5, 1, "3", 1.7e9, -60.0, "evaluate.some_action", *tasks
    )
    message = flwr_compat.make_message(envelope, RecordDict())
    assert flwr_compat.envelope(message) == envelope
    assert message.has_content()
    assert not message.has_error()
    failed = flwr_compat.make_message(envelope, Error(2, "broke"))
    assert flwr_compat.envelope(failed) == envelope
    assert failed.error == Error(2, "broke")
    assert not failed.has_content()


def test_a_message_id_is_set_and_an_answer_refers_to_it() -> None:
    flwr_compat.become(7, 1, 3)
    asked = Message(RecordDict(), 5, "train")
    flwr_compat.set_message_id(asked, "c" * 32)
    assert asked.metadata.message_id == "c" * 32
    answer = Message(RecordDict(), reply_to=asked)
    assert answer.metadata.reply_to_message_id == "c" * 32
    assert (answer.metadata.src_node_id, answer.metadata.dst_node_id) == (5, 1)
    assert (answer.metadata.src_task_id, answer.metadata.dst_task_id) == (None, 3)


def test_a_run_and_a_node_are_what_a_grid_yields() -> None:
    run = flwr_compat.make_run(7)
    assert (run.run_id, run.fab_id, run.override_config) == (7, "", {})
    node = flwr_compat.make_node_info(5, "clinic-a")
    assert (node.node_id, node.name) == (5, "clinic-a")


def test_a_grid_has_these_methods_and_no_other() -> None:
    assert Grid.__abstractmethods__ == {
        "set_run",
        "run",
        "create_message",
        "get_node_ids",
        "push_messages",
        "pull_messages",
        "send_and_receive",
    }
    assert callable(Grid.get_nodes)


def test_the_codes_of_errors_are_flowers() -> None:
    flowers = {name: code for name, code in vars(FlowerErrorCode).items() if name.isupper()}
    assert {code.name: code.value for code in headers.ErrorCode} == flowers


def test_the_kind_of_serialisation_is_flowers() -> None:
    assert records.STYPE == SType.NUMPY


TYPES = ["train", "evaluate", "query", "system", "get_parameters", "get_properties", "reconnect"]
TYPES += ["train.a", "evaluate._1", "query.été", "system.x", "train.", ".a", "train.a.b", "", "."]
TYPES += ["Train", "train.1a", "train.a-b", "train a", "get_parameters.a", "destroy", "train\n"]


@pytest.mark.parametrize("text", TYPES)
def test_a_message_type_is_one_for_us_if_it_is_for_flower(text: str) -> None:
    try:
        flwr_compat.make_message(
            Envelope("a" * 32, "", 7, 1, 5, "", 1.7e9, 60.0, text), RecordDict()
        )
        flowers = True
    except ValueError:
        flowers = False
    assert headers.is_message_type(text) == flowers


@pytest.mark.parametrize("module", flwr_apps._LAUNCHER)
def test_the_launchers_modules_exist(module: str) -> None:
    """A name that Flower moved away would not be refused any more."""
    try:
        import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            return  # it is there, and lacks something optional
        parent, _, name = module.rpartition(".")
        assert hasattr(import_module(parent), name)
