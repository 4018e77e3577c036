"""The Slurm script: checked by shellcheck, run by commands that stand in for Slurm's, parsed by sbatch where it is."""

import _thread
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.patience import PROCESS
from workflows.reproduce import run_cell
from workflows.reproduce.backends import backend_of
from workflows.reproduce.cell_files import read_start

# Slurm's commands for one job at a time on this machine. `srun` notes where it was asked to run what.
COMMANDS = {
    "sbatch": """
        setsid env SLURM_JOB_NODELIST='n[1-2]' bash "$1" >"$SLURM_HERE/output" 2>&1 </dev/null &
        echo $! >"$SLURM_HERE/pid"
        grep -o 'job-name=.*' "$1" >"$SLURM_HERE/name"
        echo "Submitted batch job 7"
    """,
    "squeue": """
        case " $* " in *" --$(sed s/job-// "$SLURM_HERE/name" 2>/dev/null) "*) ;; *) exit 0 ;; esac
        kill -0 "$(cat "$SLURM_HERE/pid")" 2>/dev/null && echo 7
        exit 0
    """,
    "scancel": 'kill -TERM -- "-$(cat "$SLURM_HERE/pid")"',
    "scontrol": "printf 'n1\\nn2\\n'",
    "srun": """
        while [[ $1 == --* ]]; do [[ $1 == --nodelist=* ]] && host=${1#*=}; shift; done
        echo "$host $*" >>"$SLURM_HERE/srun"
        exec "$@"
    """,
}

# From PyPI it is beside the interpreter, which need not be in PATH.
SHELLCHECK = shutil.which("shellcheck", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))


def real_slurm():
    """Whether a Slurm with the nodes n1 and n2 answers here (SLURM_CONF, requirements/slurm_here.sh)."""
    if shutil.which("sinfo") is None:
        return False
    told = subprocess.run(["sinfo", "--noheader", "--Node", "--format=%N"], capture_output=True, text=True, timeout=60)
    return told.stdout.split() == ["n1", "n2"]


@pytest.fixture(params=["ours", "real"])
def slurm(request, laboratory, monkeypatch):
    """A site with Slurm: our commands, or a real Slurm where one runs."""
    here = laboratory.folder / "slurm"
    here.mkdir()
    if request.param == "real":
        if not real_slurm():
            pytest.skip("no Slurm with the nodes n1 and n2 runs here")
        laboratory.slurm = {"partition": "gpu", "gpus": "none", "time": "10"}
    else:
        commands = laboratory.folder / "bin"
        commands.mkdir()
        for name, body in COMMANDS.items():
            (commands / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
            (commands / name).chmod(0o755)
        monkeypatch.setenv("SLURM_HERE", str(here))
        monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
        laboratory.slurm = {"partition": "gpu", "account": "lab", "time": "12:00:00"}
    laboratory.write(budget={"steps": [4]})
    laboratory.write_site(backend="slurm", nodes=2, slurm=laboratory.slurm)
    laboratory.here = here
    return laboratory


def script_of(laboratory):
    _, site = laboratory.load()
    files = backend_of(site).files(laboratory.cells()[0], "srpo-job-1")
    return files["slurm.sh"]


@pytest.mark.skipif(SHELLCHECK is None, reason="shellcheck is not installed")
def test_shellcheck_finds_nothing(laboratory):
    laboratory.write_site(backend="slurm", nodes=2, slurm={"container": "img.sqsh", "mounts": ["/a:/a"]})
    _, site = laboratory.load()
    for name, text in backend_of(site).files(laboratory.cells()[0], "srpo-job-1").items():
        done = subprocess.run([SHELLCHECK, "--shell=bash", "-"], input=text, capture_output=True, text=True)
        assert done.returncode == 0, f"{name}\n{done.stdout}"


def test_the_site_is_in_the_directives(laboratory):
    container = {"container": "img.sqsh", "mounts": ["/a:/a", "/b:/b"]}
    laboratory.write_site(backend="slurm", nodes=2, slurm={"gpus": "gres", "directives": ["--exclusive"], **container})
    script = script_of(laboratory)
    directives = [line for line in script.splitlines() if line.startswith("#SBATCH")]
    for line in ("--nodes=2", "--gres=gpu:2", "--exclusive"):
        assert f"#SBATCH {line}" in directives
    assert not any("partition" in line for line in directives)
    assert "--container-image=img.sqsh --container-mounts=/a:/a,/b:/b" in script


def test_a_cell_runs_over_its_allocation_and_leaves_nothing(slurm):
    chosen = slurm.cells()[:1]
    assert slurm.run(chosen) == [("started", chosen[0].name), ("done", chosen[0].name)]
    output = (chosen[0].folder / "slurm.log", slurm.here / "output")
    assert sum(path.read_text().count("stand-in: ray started") for path in output if path.exists()) == 2
    deadline = time.monotonic() + PROCESS
    while (left := [line for line in processes() if str(slurm.folder) in line]) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left


def test_the_head_is_on_the_first_node(slurm):
    if not (slurm.folder / "bin").exists():
        pytest.skip("only our srun notes what it was asked")
    slurm.run(slurm.cells()[:1])
    asked = (slurm.here / "srun").read_text().splitlines()
    (head,) = [line for line in asked if "--head" in line]
    (worker,) = [line for line in asked if "--address=" in line]
    (cell,) = [line for line in asked if line.endswith("/cell.sh")]
    assert head.startswith("n1 ")
    assert worker.startswith("n2 ")
    assert cell.startswith("n1 ")
    assert "start --num-gpus=2 --block --head" in head


@pytest.fixture
def interruptible():
    """A test run that a shell started in the background has SIGINT ignored: an interrupt would then be none."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_job_that_outlives_this_program_is_found_again(slurm, interruptible):
    """The program is told to stop; the job goes on; the next program watches it instead of starting another."""
    slurm.write(budget={"steps": [4]}, overrides=["+stand_in.hold=2"])
    chosen = slurm.cells()[:1]
    with pytest.raises(KeyboardInterrupt):
        slurm.run(chosen, at_step=(2, _thread.interrupt_main))
    assert slurm.states()[chosen[0].name].state == "unwatched"
    (chosen[0].folder / "go_on").touch()
    assert slurm.run(chosen)[-1] == ("done", chosen[0].name)
    assert [step for _, step in slurm.steps_done()] == ["1", "2", "3", "4"]


def test_a_cancelled_job_is_a_failed_cell(slurm, monkeypatch):
    monkeypatch.setattr(run_cell, "SECONDS_FOR_EXIT_CODE", 0.5)
    slurm.write(budget={"steps": [4]}, overrides=["+stand_in.hold=2"])
    chosen = slurm.cells()[:1]
    slurm.run(chosen, at_step=(2, lambda: cancel(chosen[0])))
    state = slurm.states()[chosen[0].name]
    assert state.state == "failed"
    assert "is gone without an exit code: cancelled, out of time, or its node was lost" in state.reason


@pytest.mark.skipif(shutil.which("sbatch") is None, reason="Slurm is not installed")
def test_sbatch_reads_the_directives(laboratory, monkeypatch):
    """Parsing needs a configuration, not a controller: a bad directive is another error than no controller."""
    conf = laboratory.folder / "slurm.conf"
    conf.write_text(
        "ClusterName=none\nSlurmctldHost=localhost\nSlurmctldPort=1\nGresTypes=gpu\nNodeName=n1\nMessageTimeout=1\n"
    )
    monkeypatch.setenv("SLURM_CONF", str(conf))
    laboratory.write_site(backend="slurm", nodes=2, slurm={"partition": "gpu", "time": "12:00:00"})
    script = laboratory.folder / "slurm.sh"

    def told(text):
        script.write_text(text)
        done = subprocess.run(["sbatch", "--test-only", str(script)], capture_output=True, text=True, timeout=120)
        return done.stderr

    good = script_of(laboratory)
    assert "Invalid --time" in told(good.replace("12:00:00", "noon"))
    assert "unrecognized option" in told(good.replace("--no-requeue", "--no-return"))
    assert not any(word in told(good) for word in ("Invalid", "nrecognized"))


def cancel(cell):
    subprocess.run(["scancel", f"--name={read_start(cell).job}"], check=True)


def processes():
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
