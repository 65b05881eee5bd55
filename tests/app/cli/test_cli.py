"""Exit statuses and messages of the commands, as a user meets them: in a process of their own."""

import subprocess
import sys

import pytest

from commands import run_python


def run(*arguments, cwd, timeout=600):
    return run_python("-m", *arguments, cwd=cwd, timeout=timeout)


HEAVY = {
    "tensorflow",
    "keras",
    "sklearn",
    "scipy",
    "pandas",
    "matplotlib",
    "SimpleITK",
    "nibabel",
    "numpy",
}


def imported_by(code):
    """Which packages that the answer would have to wait for a piece of code imports."""
    look = f"print(sorted({HEAVY} & set(sys.modules)))"
    probe = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\n{look}"
    answer = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return answer.stdout.strip().splitlines()[-1]


COMMANDS = {  # with the groups that each may choose from
    "train": "augment data experiment logger model optimizer preprocess",
    "compare": "augment data experiment logger model optimizer preprocess",
    "study": "augment data experiment logger model optimizer preprocess study",
    "audit": "data preprocess",
    "evaluate": "",
    "predict": "",
    "export": "",
    "lift": "",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_examples_and_keys_and_imports_nothing_heavy(command, tmp_path):
    answer = run(f"voxlift.app.cli.{command}", "--help", cwd=tmp_path)
    assert answer.returncode == 0
    assert f"voxlift-{command}" in answer.stdout
    assert "Examples" in answer.stdout
    _, _, choices = answer.stdout.partition("== Choices (group=option) ==")
    groups = [line.partition(":")[0] for line in choices.partition("==")[0].splitlines() if line]
    assert groups == COMMANDS[command].split()
    assert "_schema" not in choices
    start = f"from voxlift.app.cli.{command} import main; main()"
    assert imported_by(f"sys.argv = ['x', '--help']; {start}") == "[]"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["voxlift.app.cli.train", "trainer.epoch=3"],
            "unknown key trainer.epoch. Did you mean trainer.epochs?",
        ),
        (["voxlift.app.cli.train", "model=volume4d"], "model=volume4d is not known. Did you mean volume3d?"),
        (
            ["voxlift.app.cli.train", "trainer.epochs=many"],
            "trainer.epochs: expected a whole number; received many.",
        ),
        (["voxlift.app.cli.train", "precision=half"], "precision: expected one of auto, float32"),
        (["voxlift.app.cli.train", "splits.val=0.7", "splits.test=0.4"], "expected val + test below 1"),
        (["voxlift.app.cli.train", "data.table=a=b(c,d"], "'data.table=\"a=b(c,d\"'"),
        (["voxlift.app.cli.train", "data=manifest"], "data.table"),
        (["voxlift.app.cli.train", "data=manifest", "data.table=nowhere.csv"], "nowhere.csv"),
        (["voxlift.app.cli.evaluate", "run=nowhere"], "run=nowhere: expected a run folder"),
        (["voxlift.app.cli.evaluate"], "run"),
        (["voxlift.app.cli.predict", "outptu=a.csv"], "unknown key outptu. Did you mean output?"),
        (["voxlift.app.cli.predict", "run=nowhere", "input=."], "run=nowhere: expected a run folder"),
        (["voxlift.app.cli.export", "formt=onnx"], "unknown key formt. Did you mean format?"),
        (["voxlift.app.cli.export"], "output: where should the export go?"),
        (["voxlift.app.cli.predict"], "input: expected an image, a folder or a table"),
        (["voxlift.app.cli.compare", "models=[volume3d,resnet9000]"], "models: resnet9000 is not known"),
        (["voxlift.app.cli.compare", "models=[volume3d]"], "at least two"),
        (["voxlift.app.cli.compare", "data=manifest", "data.table=nowhere.csv"], "There is no table"),
        (["voxlift.app.cli.compare", "model=slice2d"], "models=[...]"),
        (["voxlift.app.cli.study", "study=search", "study.trails=3"], "Did you mean study.trials?"),
        (
            ["voxlift.app.cli.study", "study.space.seed=[1,2]"],
            "study=batch_size does not read it; it is a key of study=search",
        ),
        (["voxlift.app.cli.train", "-m", "seed=0,1", "run_dir=here"], "run_dir=here with -m"),
    ],
)
def test_the_users_mistakes_end_in_a_sentence_and_status_2(arguments, told, tmp_path):
    answer = run(*arguments, cwd=tmp_path)
    assert answer.returncode == 2, answer.stderr
    assert told in answer.stderr
    assert "Traceback" not in answer.stderr


def test_debug_shows_the_traceback_of_a_mistake(tmp_path):
    answer = run(
        "voxlift.app.cli.train", "data=manifest", "data.table=nowhere.csv", "debug=true", cwd=tmp_path
    )
    assert answer.returncode == 2
    assert "Traceback" in answer.stderr


def test_a_configuration_error_imports_nothing_heavy():
    code = "sys.argv = ['x', 'trainer.epochs=0']; from voxlift.app.cli.train import main; main()"
    assert imported_by(code) == "[]"


@pytest.mark.parametrize(
    ("deed", "status", "shown"),
    [("1 / 0", 70, "ZeroDivisionError"), ("raise KeyboardInterrupt", 130, "Interrupted")],
)
def test_a_crash_keeps_its_traceback_and_an_interrupt_needs_none(deed, status, shown, tmp_path):
    lines = [
        "from voxlift.app.cli.command import run_command",
        "def job(cfg):",
        f"    {deed}",
        "run_command('train', read=lambda cfg: cfg, job=job)",
    ]
    (tmp_path / "script.py").write_text("\n".join(lines))
    answer = run("script", cwd=tmp_path)
    assert answer.returncode == status
    assert shown in answer.stderr
    assert ("Traceback" in answer.stderr) == (status == 70)


def test_the_version_is_ours_and_a_setting_with_dashes_is_told_without(tmp_path):
    from voxlift import __version__

    assert run("voxlift.app.cli.audit", "--version", cwd=tmp_path).stdout == f"voxlift {__version__}\n"
    answer = run("voxlift.app.cli.evaluate", "--run", "runs/first", cwd=tmp_path)
    assert answer.returncode == 2
    assert answer.stderr == ("error: --run: settings are written without dashes, as key=value: run=VALUE.\n")
