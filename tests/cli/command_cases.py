"""Commands that can't work."""

from npflows.cli import main


def fails(capsys, *argv):
    """The one line that a command which can't work prints."""
    assert main(list(argv)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("npflows")
    assert "Traceback" not in err
    return err
