"""Exit statuses, help and messages of the commands."""

import re

import pytest

from commands import call_command, run_python
from voxlift.app.config import register_schemas
from voxlift.app.config.keys import SCHEMA, list_known_keys

ENDINGS = ("npz", "h5", "xlsx", "keras", "applications")  # of files, and a module, in the help
HEAVY = ["tensorflow", "keras", "sklearn", "scipy", "pandas", "matplotlib", "SimpleITK", "nibabel", "numpy"]
COMMANDS = {  # with their groups of choices
    "train": "augment data experiment logger model optimizer preprocess task",
    "compare": "augment cluster data experiment logger model optimizer preprocess task",
    "study": "augment cluster data experiment logger model optimizer preprocess study task",
    "audit": "cluster data preprocess task",
    "prepare": "cluster data preprocess task",
    "evaluate": "",
    "predict": "cluster",
    "export": "",
    "report": "",
    "lift": "",
}


def run_and_list_imports(command, *arguments, cwd):
    """Run a command in a new process; its output, status, and the heavy packages that it imported."""
    code = (
        f"import sys; sys.argv = ['voxlift-{command}', *{arguments!r}]\n"
        f"try:\n    from voxlift.app.cli.{command} import main; main()\n"
        "except SystemExit as end:\n    status = end.code\n"
        f"print(status, *sorted(set({HEAVY}) & set(sys.modules)))"
    )
    done = run_python("-c", code, cwd=cwd)
    assert done.returncode == 0, done.stderr
    status, *imported = done.stdout.splitlines()[-1].split()
    return done.stdout, int(status), imported


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_examples_and_choices_and_imports_nothing_heavy(command, tmp_path):
    text, status, imported = run_and_list_imports(command, "--help", cwd=tmp_path)
    assert (status, imported) == (0, [])
    assert "Examples" in text
    assert text.count(f"  voxlift-{command}") >= 3
    assert "Exit status" in text
    _, _, choices = text.partition("== Choices (group=option) ==")
    lines = [line for line in choices.partition("\n\n")[0].splitlines() if line and not line.startswith(" ")]
    groups = [line.partition(":")[0] for line in lines]
    assert groups == COMMANDS[command].split()
    assert "_schema" not in choices
    assert len(text.splitlines()) <= 80
    assert max(map(len, text.splitlines())) <= 104
    assert not list(tmp_path.iterdir())


def test_a_configuration_error_imports_nothing_heavy(tmp_path):
    _, status, imported = run_and_list_imports("train", "trainer.epochs=0", cwd=tmp_path)
    assert (status, imported) == (2, ["numpy"])  # which the tasks know the shapes of their labels by


MISTAKES = [  # a command line, and what the message names
    ("train trainer.epoch=3", "trainer.epoch trainer.epochs?"),
    ("train model=volume4d", "model=volume4d volume3d?"),
    ("train trainer.epochs=many", "trainer.epochs: many."),
    ("train precision=half", "precision: float32 half."),
    ("train splits.val=0.7 splits.test=0.4", "val test 0.7 0.4."),
    ("train data.table=a=b(c,d", "'data.table=\"a=b(c,d\"'"),
    ("train data=manifest", "data.table"),
    ("train data=manifest data.table=nowhere.csv", "nowhere.csv"),
    ("evaluate run=nowhere", "run=nowhere:"),
    ("evaluate", "run:"),
    ("predict outptu=a.csv", "outptu output?"),
    ("predict run=nowhere input=.", "run=nowhere:"),
    ("predict", "run: input:"),
    ("prepare data=manifest", "data.table"),
    ("prepare cluster=local cluster.workers=0 cluster.shard_size=0", "cluster.workers cluster.shard_size"),
    ("audit cluster=scheduler", "cluster.address"),
    ("export formt=onnx", "formt format?"),
    ("export", "run: output:"),
    ("report", "run: runs:"),
    ("report run=nowhere", "run=nowhere:"),
    ("report run=nowhere checklist=other", "checklist: claim other."),
    ("compare models=[volume3d,resnet9000]", "models: resnet9000"),
    ("compare models=[volume3d]", "models"),
    ("compare data=manifest data.table=nowhere.csv", "nowhere.csv"),
    ("compare model=slice2d", "models=[...]"),
    ("study study=search study.trails=3", "study.trials?"),
    ("study study.space.seed=[1,2]", "study=batch_size study=search"),
    ("train -m seed=0,1 run_dir=here", "run_dir=here"),
]


def test_a_mistake_of_the_user_ends_with_status_2_and_a_message_that_names_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for line, named in MISTAKES:
        command, *arguments = line.split()
        assert call_command(command, *arguments) == 2, line
        message = capsys.readouterr().err
        assert message.splitlines()[-1].startswith("error: ") or message.startswith("error: "), line
        assert "Traceback" not in message
        assert [word for word in named.split() if word not in message] == [], (line, message)


def test_debug_shows_the_traceback_of_a_mistake(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert call_command("train", "data=manifest", "data.table=nowhere.csv", "debug=true") == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("statement", "status", "shown"),
    [("1 / 0", 70, "ZeroDivisionError"), ("raise KeyboardInterrupt", 130, "Interrupted")],
)
def test_a_crash_keeps_its_traceback_and_an_interrupt_has_none(statement, status, shown, tmp_path):
    lines = [
        "from voxlift.app.cli.command import run_command",
        "def job(cfg):",
        f"    {statement}",
        "run_command('train', read=lambda cfg: cfg, job=job)",
    ]
    (tmp_path / "script.py").write_text("\n".join(lines))
    done = run_python("-m", "script", cwd=tmp_path)
    assert done.returncode == status
    assert shown in done.stderr
    assert ("Traceback" in done.stderr) == (status == 70)


def test_the_version_is_that_of_voxlift_and_a_setting_with_dashes_is_refused(capsys):
    from voxlift import __version__

    assert call_command("audit", "--version") == 0
    assert capsys.readouterr().out == f"voxlift {__version__}\n"
    assert call_command("evaluate", "--run", "runs/first") == 2
    message = capsys.readouterr().err
    assert message.startswith("error: --run: ")
    assert "run=VALUE" in message


def test_help_names_only_keys_that_exist(tmp_path):
    text, _, _ = run_and_list_imports("train", "--help", cwd=tmp_path)
    listed = text.partition("\nKeys")[2].partition("\n\n")[0]
    keys, group = set(), ""
    for named, key in re.findall(r"(?<![\w.])([a-z]+)?\.([a-z_]+)\b", listed):
        group = named or group
        if key not in ENDINGS and group != "mynets":
            keys.add(f"{group}.{key}")
    register_schemas()
    assert len(keys) > 30
    assert keys - set(list_known_keys(f"train{SCHEMA}")) == set()
