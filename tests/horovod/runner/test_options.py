"""Options: all of Horovod's, what they tell the workers, and what is refused. Against Horovod 0.28.1's launcher."""

from __future__ import annotations

import pytest

from phalanx.foundation import UsageError
from phalanx.horovod.runner.hosts import HostSlots
from phalanx.horovod.runner.options import OPTIONS, checked, read_config_file, variables, without_effect
from phalanx.horovod.runner.settings import settle

# `horovodrun --help` of 0.28.1, and what it does not show.
HOROVODS = """
-v --version -np --num-proc -cb --check-build --disable-cache --start-timeout --network-interfaces --network-interface
--output-filename --verbose --config-file -p --ssh-port -i --ssh-identity-file --fusion-threshold-mb --cycle-time-ms
--cache-capacity --hierarchical-allreduce --no-hierarchical-allreduce --hierarchical-allgather
--no-hierarchical-allgather --torus-allreduce --no-torus-allreduce --autotune --no-autotune --autotune-log-file
--autotune-warmup-samples --autotune-steps-per-sample --autotune-bayes-opt-max-samples
--autotune-gaussian-process-noise --min-np --min-num-proc --max-np --max-num-proc --slots-per-host --elastic-timeout
--reset-limit --blacklist-cooldown-range --timeline-filename --timeline-mark-cycles --no-timeline-mark-cycles
--no-stall-check --stall-check --stall-check-warning-time-seconds --stall-check-shutdown-time-seconds
--mpi-threads-disable --no-mpi-threads-disable --mpi-args --tcp --binding-args --num-nccl-streams --thread-affinity
--gloo-timeout-seconds --log-level --log-with-timestamp --log-without-timestamp -prefix-timestamp
--prefix-output-with-timestamp --log-hide-timestamp --no-log-hide-timestamp -H --hosts -hostfile --hostfile
--host-discovery-script --gloo --mpi --jsrun
"""


def test_every_option_of_horovod_is_there_and_no_other():
    names = {name for option in OPTIONS.values() for name in (*option.typed, *option.off)}
    assert names == set(HOROVODS.split()) - {"-v", "--version"}


def test_the_workers_are_told_in_horovods_variables():
    given = {
        "fusion_threshold_mb": 10,
        "cycle_time_ms": 20.0,
        "cache_capacity": 512,
        "hierarchical_allreduce": True,
        "hierarchical_allgather": False,
        "torus_allreduce": True,
        "autotune": True,
        "autotune_log_file": "/tmp/autotune.txt",
        "autotune_warmup_samples": 1,
        "autotune_steps_per_sample": 5,
        "autotune_bayes_opt_max_samples": 10,
        "autotune_gaussian_process_noise": 0.2,
        "timeline_filename": "/tmp/timeline.json",
        "timeline_mark_cycles": True,
        "no_stall_check": True,
        "stall_check_warning_time_seconds": 10,
        "stall_check_shutdown_time_seconds": 20,
        "mpi_threads_disable": True,
        "num_nccl_streams": 2,
        "tcp_flag": True,
        "thread_affinity": 1,
        "gloo_timeout_seconds": 60,
        "log_level": "INFO",
        "log_with_timestamp": False,
    }
    assert variables(checked(given)) == {
        "HOROVOD_FUSION_THRESHOLD": str(10 * 1024 * 1024),
        "HOROVOD_CYCLE_TIME": "20.0",
        "HOROVOD_CACHE_CAPACITY": "512",
        "HOROVOD_HIERARCHICAL_ALLREDUCE": "1",
        "HOROVOD_HIERARCHICAL_ALLGATHER": "0",
        "HOROVOD_TORUS_ALLREDUCE": "1",
        "HOROVOD_AUTOTUNE": "1",
        "HOROVOD_AUTOTUNE_LOG": "/tmp/autotune.txt",
        "HOROVOD_AUTOTUNE_WARMUP_SAMPLES": "1",
        "HOROVOD_AUTOTUNE_STEPS_PER_SAMPLE": "5",
        "HOROVOD_AUTOTUNE_BAYES_OPT_MAX_SAMPLES": "10",
        "HOROVOD_AUTOTUNE_GAUSSIAN_PROCESS_NOISE": "0.2",
        "HOROVOD_TIMELINE": "/tmp/timeline.json",
        "HOROVOD_TIMELINE_MARK_CYCLES": "1",
        "HOROVOD_STALL_CHECK_DISABLE": "1",
        "HOROVOD_STALL_CHECK_TIME_SECONDS": "10",
        "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "20",
        "HOROVOD_MPI_THREADS_DISABLE": "1",
        "HOROVOD_NUM_NCCL_STREAMS": "2",
        "NCCL_IB_DISABLE": "1",
        "HOROVOD_THREAD_AFFINITY": "1",
        "HOROVOD_GLOO_TIMEOUT_SECONDS": "60",
        "HOROVOD_LOG_LEVEL": "INFO",
        "HOROVOD_LOG_HIDE_TIME": "1",
    }


def test_nothing_is_told_that_was_not_asked_for():
    assert variables({}) == {}
    assert variables({"autotune": False, "autotune_warmup_samples": 1}) == {}
    assert variables({"timeline_mark_cycles": True, "tcp_flag": False}) == {}


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("fusion_threshold_mb", -1, "--fusion-threshold-mb is -1\n  To do: give 0 or more"),
        ("autotune_gaussian_process_noise", 1.5, "is 1.5\n  To do: give 0 to 1"),
        ("fusion_threshold_mb", True, "is True\n  To do: give a whole number"),
        ("fusion_threshold_mb", "many", "is 'many'\n  To do: give a whole number"),
        ("cycle_time_ms", "soon", "give a number"),
        ("timeline_filename", 3, "give a text"),
        ("log_level", "LOUD", "give one of TRACE, DEBUG"),
        ("num_proc", 0, "--num-proc is 0\n  To do: give 1 or more"),
        ("start_timeout", 0, "--start-timeout is 0\n  To do: give 1 or more"),
        ("min_num_proc", 0, "--min-num-proc is 0\n  To do: give 1 or more"),
        ("cooldown_range", (1, -1), "--blacklist-cooldown-range is -1"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_with_what_can(name, value, said):
    with pytest.raises(UsageError) as refused:
        checked({name: value})
    assert said in str(refused.value)


def test_what_can_mean_nothing_here_is_said_of_what_is_asked_for():
    given = {"use_mpi": True, "autotune": False, "num_nccl_streams": 0, "mpi_args": "--x", "cycle_time_ms": 1.0}
    assert list(without_effect(given)) == [
        "--mpi has no effect: nothing here goes through MPI",
        "--num-nccl-streams has no effect: torch chooses NCCL's streams",
        "--mpi-args has no effect: nothing here goes through MPI",
    ]


CONFIG = """\
controller: gloo
params:
  fusion_threshold_mb: 32
  cycle_time_ms: 10
  cache_capacity: 2048
  hierarchical_allreduce: true
  hierarchical_allgather: true
autotune:
  enabled: true
  log_file: horovod_autotune_log.txt
  warmup_samples: 5
timeline:
  filename: horovod_timeline.json
  mark_cycles: true
stall_check:
  enabled: false
  warning_time_seconds: 120
library_options:
  num_nccl_streams: 2
  gloo_timeout_seconds: 60
logging:
  level: INFO
  with_timestamp: true
"""


def test_a_configuration_file_of_horovod_is_read(tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    found, unknown = read_config_file(str(tmp_path / "config.yaml"))
    assert unknown == []
    assert checked(found) == {
        "use_gloo": True,
        "fusion_threshold_mb": 32,
        "cycle_time_ms": 10,
        "cache_capacity": 2048,
        "hierarchical_allreduce": True,
        "hierarchical_allgather": True,
        "autotune": True,
        "autotune_log_file": "horovod_autotune_log.txt",
        "autotune_warmup_samples": 5,
        "timeline_filename": "horovod_timeline.json",
        "timeline_mark_cycles": True,
        "no_stall_check": True,
        "stall_check_warning_time_seconds": 120,
        "num_nccl_streams": 2,
        "gloo_timeout_seconds": 60,
        "log_level": "INFO",
        "log_with_timestamp": True,
    }


def test_a_line_of_a_configuration_file_that_means_nothing_is_named(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("params:\n  fusion_treshold_mb: 32\nparameters: {cycle_time_ms: 1}\ncontroller: carrier-pigeon\n")
    found, unknown = read_config_file(str(file))
    assert found == {}
    assert unknown == [
        f"{file}:2: params.fusion_treshold_mb is not known, and has no effect",
        f"{file}:3: parameters.cycle_time_ms is not known, and has no effect",
        f"{file}:4: controller is not known, and has no effect",
    ]


def test_a_configuration_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_config_file(str(tmp_path / "none.yaml"))
    (tmp_path / "config.yaml").write_text("params: [")
    with pytest.raises(UsageError, match="this is not YAML"):
        read_config_file(str(tmp_path / "config.yaml"))
    (tmp_path / "config.yaml").write_text("just words")
    assert read_config_file(str(tmp_path / "config.yaml")) == ({}, [])


def test_a_job_without_hosts_is_on_this_one():
    assert settle({"num_proc": 3}, {}).hosts == (HostSlots("localhost", 3),)


def test_a_job_with_a_discovery_script_or_a_least_size_is_elastic():
    discovered = settle({"num_proc": 3, "host_discovery_script": "./hosts.sh"}, {})
    assert discovered.elastic
    assert discovered.hosts == ()
    assert settle({"num_proc": 3, "min_num_proc": 2}, {}).elastic
    assert not settle({"num_proc": 3, "max_num_proc": 4}, {}).elastic


@pytest.mark.parametrize("elastic", [{}, {"min_num_proc": 1}, {"host_discovery_script": "./hosts.sh"}])
def test_a_job_that_may_not_be_as_large_as_it_is_asked_to_be_is_refused(elastic):
    with pytest.raises(UsageError, match="--max-np 2 is less than -np 3"):
        settle({"num_proc": 3, "max_num_proc": 2, **elastic}, {})
    with pytest.raises(UsageError, match="--max-np 3 is less than --min-np 4"):
        settle({"num_proc": 3, "max_num_proc": 3, "min_num_proc": 4}, {})
    assert settle({"num_proc": 3, "max_num_proc": 3, **elastic}, {}).max_num_proc == 3


def test_timeouts_come_from_options_then_variables_then_what_horovod_has():
    variables = {"HOROVOD_START_TIMEOUT": "7", "HOROVOD_ELASTIC_TIMEOUT": "8"}
    job = settle({"num_proc": 1}, variables)
    assert (job.start_timeout_s, job.elastic_timeout_s) == (7, 8)
    job = settle({"num_proc": 1, "start_timeout": 9, "elastic_timeout": 10}, variables)
    assert (job.start_timeout_s, job.elastic_timeout_s) == (9, 10)
    job = settle({"num_proc": 1}, {})
    assert (job.start_timeout_s, job.elastic_timeout_s) == (30, 600)
    for wrong in ("soon", "-1", "nan", "inf"):
        with pytest.raises(UsageError, match=f"HOROVOD_START_TIMEOUT is '{wrong}'"):
            settle({"num_proc": 1}, {"HOROVOD_START_TIMEOUT": wrong})


def test_help_says_which_wait_each_timeout_bounds():
    assert "for all processes to be started" in OPTIONS["start_timeout"].help
    assert "--gloo-timeout-seconds" in OPTIONS["start_timeout"].help
    assert "hvd.init() waits for the other ranks" in OPTIONS["gloo_timeout_seconds"].help


def test_interfaces_may_be_given_in_one_or_several():
    assert settle({"num_proc": 1, "nics": ("eth0,eth1", " lo")}, {}).interfaces == ("eth0", "eth1", "lo")


def test_what_contradicts_itself_or_lacks_a_size_is_refused():
    with pytest.raises(UsageError, match="-H and --hostfile both name hosts"):
        settle({"num_proc": 1, "hosts": "a:1", "hostfile": "b"}, {})
    with pytest.raises(UsageError, match="how many processes"):
        settle({}, {})
