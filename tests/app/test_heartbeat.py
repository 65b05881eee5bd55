"""A log without a progress bar gets a line about every 30 seconds."""

from voxlift.app.progress import SILENT_SECONDS, Heartbeat


def ticks(*, is_needed):
    now, lines = [0.0], []
    beat = Heartbeat("Reading", is_needed=is_needed, clock=lambda: now[0], say=lines.append)
    for done in range(1, 101):
        now[0] += 1
        beat.tick(done, 100)
    return lines


def test_a_line_is_printed_about_every_thirty_seconds_where_there_is_no_bar():
    lines = ticks(is_needed=True)
    assert len(lines) == 100 // SILENT_SECONDS
    assert "30 of 100" in lines[0]
    assert ticks(is_needed=False) == []
