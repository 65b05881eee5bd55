"""Rows of external data that a run cannot score are named, with the reason and how many."""

from types import SimpleNamespace

from voxlift.app.external import run


def test_labels_that_the_run_does_not_know_are_named(monkeypatch, capsys):
    manifest = SimpleNamespace(
        source="other.csv",
        left_out={"label 'other' is not a class": 2},
        target="classes",
        classes=("a", "b"),
        records=(SimpleNamespace(label=0),),
    )
    monkeypatch.setattr(run, "load_external", lambda *_: manifest)
    for name in ("refuse_trained_names", "prepare_external", "refuse_trained_voxels"):
        monkeypatch.setattr(run, name, lambda *_, **__: None)
    data = SimpleNamespace(classes=["A", "b"])
    settings = SimpleNamespace(evaluation=SimpleNamespace(same_names="refuse"), data=data)
    run.gather_external(settings, ("a", "b"), SimpleNamespace(notes=()))
    printed = capsys.readouterr().out
    assert "label 'other' is not a class (2)" in printed
    assert "A counts as a" in printed
    assert "of class b" in printed
    assert "data.classes" in printed
    assert "other.csv" in printed
