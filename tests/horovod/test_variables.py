"""The variables that a script's environment may set, in the forms that Horovod takes them in."""

from __future__ import annotations

import logging
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.foundation import UsageError
from phalanx.horovod.variables import WITHOUT_EFFECT, Variables, without_effect

WHOLE = ("HOROVOD_FUSION_THRESHOLD",)
NUMBERS = (
    "HOROVOD_CYCLE_TIME",
    "HOROVOD_STALL_CHECK_TIME_SECONDS",
    "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS",
    "HOROVOD_GLOO_TIMEOUT_SECONDS",
)
TRUTHS = {
    "HOROVOD_TIMELINE_MARK_CYCLES": "timeline_mark_cycles",
    "HOROVOD_LOG_HIDE_TIME": "log_hide_time",
    "HOROVOD_DYNAMIC_PROCESS_SETS": "dynamic_process_sets",
    "HOROVOD_ELASTIC": "elastic",
}


def read(**environment: str) -> Variables:
    return Variables.from_environment({f"HOROVOD_{name}": value for name, value in environment.items()})


def test_an_empty_environment_gives_the_defaults_of_horovod():
    assert read() == Variables()
    assert (read().fusion_threshold, read().cycle_time_ms) == (128 * 1024 * 1024, 5.0)
    assert (read().stall_warn_s, read().stall_shutdown_s) == (60.0, 0.0)
    assert (read().timeline, read().log_level, read().gloo_timeout_s) == ("", logging.WARNING, None)


def test_what_is_set_is_read_in_its_unit():
    found = read(
        FUSION_THRESHOLD="67108864",
        CYCLE_TIME=" 3.5 ",
        TIMELINE="/tmp/a.json",
        STALL_CHECK_TIME_SECONDS="5",
        STALL_SHUTDOWN_TIME_SECONDS="10",
        GLOO_TIMEOUT_SECONDS="45",
        LOG_LEVEL="info",
    )
    assert (found.fusion_threshold, found.cycle_time_ms, found.timeline) == (64 << 20, 3.5, "/tmp/a.json")
    assert (found.stall_warn_s, found.stall_shutdown_s, found.gloo_timeout_s) == (5.0, 10.0, 45.0)
    assert found.log_level == logging.INFO


def test_zero_is_a_value_of_its_own():
    found = read(FUSION_THRESHOLD="0", CYCLE_TIME="0")
    assert (found.fusion_threshold, found.cycle_time_ms) == (0, 0.0)


@pytest.mark.parametrize(("name", "field"), TRUTHS.items())
def test_a_truth_is_a_number_above_zero(name, field):
    said = {"1": True, "2": True, "0": False, "-1": False, "": False, " 1 ": True}
    for text, expected in said.items():
        assert getattr(Variables.from_environment({name: text}), field) is expected


def test_no_looking_for_stalls_means_none():
    found = read(STALL_CHECK_DISABLE="1", STALL_CHECK_TIME_SECONDS="5")
    assert found.stall_warn_s is None
    assert found.stalls().look({"a": ([0], [1])}) == []


@pytest.mark.parametrize("name", [*WHOLE, *NUMBERS, *TRUTHS, "HOROVOD_LOG_LEVEL", "HOROVOD_STALL_CHECK_DISABLE"])
def test_what_cannot_be_meant_is_one_error_that_names_the_variable(name):
    with pytest.raises(UsageError) as caught:
        Variables.from_environment({name: "often"})
    assert (caught.value.where, "'often'" in caught.value.message) == (name, True)
    assert name in caught.value.remedy


@pytest.mark.parametrize("name", [*WHOLE, *NUMBERS])
@pytest.mark.parametrize("text", ["-1", "nan", "inf", "64MB", "1e999"])
def test_a_number_with_a_unit_or_below_zero_is_refused(name, text):
    with pytest.raises(UsageError, match="0 or more"):
        Variables.from_environment({name: text})


@given(st.dictionaries(st.sampled_from([*WHOLE, *NUMBERS, *TRUTHS, "HOROVOD_LOG_LEVEL"]), st.text()))
def test_any_text_is_read_or_refused_by_one_kind_of_error(environment):
    where = None
    try:
        Variables.from_environment(environment)
    except UsageError as error:
        where = error.where
    assert where is None or where in environment


def test_every_level_of_horovod_is_known_in_any_case():
    levels = [read(LOG_LEVEL=name).log_level for name in ("TRACE", "debug", "Info", "WARNING", "ERROR", "FATAL")]
    assert levels == [10, 10, 20, 30, 40, 50]


class TestTheLog:
    @pytest.fixture
    def log(self):
        log = logging.Logger("phalanx.horovod")  # noqa: LOG001  not in the tree: nobody has told the root where to write
        yield log
        log.handlers.clear()

    def test_goes_to_stderr_with_the_time(self, log, capsys):
        read(LOG_LEVEL="info").begin_log(log)
        log.info("hello")
        log.debug("never")
        said = capsys.readouterr().err
        assert said.endswith("INFO phalanx.horovod: hello\n")
        assert said[:2] == "20"

    def test_hides_the_time_if_asked_to(self, log, capsys):
        read(LOG_HIDE_TIME="1").begin_log(log)
        log.warning("hello")
        assert capsys.readouterr().err == "WARNING phalanx.horovod: hello\n"

    def test_goes_where_the_script_says_and_is_begun_once(self, log, capsys):
        said = []
        handler = logging.Handler()
        handler.emit = lambda record: said.append(record.getMessage())
        log.addHandler(handler)
        for _ in range(2):
            read(LOG_LEVEL="debug").begin_log(log)
        log.debug("hello")
        assert (said, capsys.readouterr().err) == (["hello"], "")


def test_what_can_mean_nothing_says_so_once_if_it_is_asked_for():
    nothing = {"HOROVOD_CACHE_CAPACITY": "0", "HOROVOD_TORUS_ALLREDUCE": "", "HOROVOD_CONTROLLER": "gloo"}
    asked = {"HOROVOD_AUTOTUNE": "1", **nothing}
    (sentence,) = without_effect(asked)
    assert sentence.startswith("HOROVOD_AUTOTUNE has no effect: ")


def test_a_variable_means_something_or_nothing_but_not_both():
    read_ones = {*WHOLE, *NUMBERS, *TRUTHS, "HOROVOD_LOG_LEVEL", "HOROVOD_STALL_CHECK_DISABLE", "HOROVOD_TIMELINE"}
    assert not read_ones & WITHOUT_EFFECT.keys()


def test_the_launcher_refuses_a_variable_before_it_starts_anything():
    command = [sys.executable, "-m", "phalanx", "horovodrun", "-np", "2", sys.executable, "-c", "print('started')"]
    done = subprocess.run(
        command, env=os.environ | {"HOROVOD_CYCLE_TIME": "often"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("HOROVOD_CYCLE_TIME: 'often' is not a number") == 1
    assert "Traceback" not in done.stderr
