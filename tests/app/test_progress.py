"""Lines for a person: whole, and as they stand."""

from voxlift.app.progress import PIPE_WIDTH, say


def test_a_line_is_said_as_it_stands_whatever_is_in_it(capsys):
    line = f"Results in runs/[bold]/x=1,{'long' * PIPE_WIDTH}"
    say(line)
    assert capsys.readouterr().out == f"{line}\n"
