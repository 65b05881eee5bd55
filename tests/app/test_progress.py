"""Lines are printed whole and unchanged."""

from voxlift.app.progress import PIPE_WIDTH, print_line


def test_a_line_is_printed_unchanged(capsys):
    line = f"Results in runs/[bold]/x=1,{'long' * PIPE_WIDTH}"
    print_line(line)
    assert capsys.readouterr().out == f"{line}\n"
