"""A signal to verl's main process becomes a request to the trainer, wherever that is."""

from srpo_verl.base.lease import take
from srpo_verl.base.lease_files import StopRequest
from srpo_verl.launch import run_start


def test_a_signal_is_passed_on_to_the_trainer(tmp_path, capsys):
    lease = take(tmp_path)
    assert run_start._passed_on(lease, "SIGUSR1", 300)
    assert lease.stop_request() == StopRequest("SIGUSR1", 300)
    assert "asked to save and end within 300 s" in capsys.readouterr().err


def test_a_request_that_cannot_be_written_does_not_end_the_run(tmp_path, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_start, "ask_to_stop", full)
    assert not run_start._passed_on(take(tmp_path), "SIGTERM", 300)
    assert "SIGTERM could not be passed on" in capsys.readouterr().err
