from workflows.doctor.check import Status, fail, ok, run_each


def test_a_broken_check_does_not_hide_the_others():
    def broken():
        yield ok("second", "half of it was fine")
        raise OSError("no such device")

    def ends_the_process():
        raise SystemExit(3)

    found = run_each(
        [
            ("first", lambda: [ok("first", "well")]),
            ("second", broken),
            ("third", ends_the_process),
            ("last", lambda: [fail("last", "ill", "mend it")]),
        ]
    )
    assert [(check.name, check.status) for check in found] == [
        ("first", Status.OK),
        ("second", Status.OK),
        ("second", Status.FAIL),
        ("third", Status.FAIL),
        ("last", Status.FAIL),
    ]
    assert "OSError: no such device" in found[2].found
    assert "test_check.py:" in found[2].found
