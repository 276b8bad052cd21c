"""A commented copy of a shipped workflow, to be edited (``neuro new``)."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from neuro.errors import InputError

_NAME = re.compile(r"^name:\s*[^\s#]+", re.MULTILINE)

COMMANDS = (
    ("check {file}", "after every change: names the line and what is wrong with it"),
    ("plan {file}", "what would run, what is in the cache, and why"),
    ("run {file}", "computes what is not in the cache; results go to runs/{name}"),
    ("run {file} --set STAGE.FIELD=VALUE", "tries a value without editing"),
    ("stages", "every stage there is; `neuro stages NAME` lists its fields"),
    ("schema neuro.schema.json", "lets an editor complete and check this file"),
)
HOW = """\
# How to edit: change a stage's fields, take a stage out, or add one and wire it with ${stage}.
# Paths are relative to this file. What is left out has the default that `neuro stages` shows.
"""


def new_workflow(file: Path, source: Path) -> str:
    """Write a copy of a workflow with a header that tells how to edit it.

    The copy's ``name`` becomes the file's name, so that its runs don't replace those of the
    original.

    Parameters
    ----------
    file : Path
        The file to write.
    source : Path
        The workflow to copy.

    Returns
    -------
    str
        The name of the new workflow.

    Raises
    ------
    InputError
        Where the file exists, has no YAML suffix, or can't be written.
    """
    if file.suffix not in (".yaml", ".yml"):
        raise InputError(f"'{file}' is no name for a workflow: it must end in .yaml")
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", file.stem).strip("-.") or "study"
    text = _renamed(source.read_text(encoding="utf-8"), source.stem, name, shlex.quote(str(file)))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise InputError(f"'{file}' exists and is not overwritten; choose another name") from error
    except OSError as error:
        raise InputError(f"'{file}' can't be written: {error.strerror}") from error
    return name


def _renamed(text: str, source: str, name: str, file: str) -> str:
    """Give a workflow's text its new name and a header."""
    commands = [
        (f"neuro {line.format(file=file)}", why.format(name=name)) for line, why in COMMANDS
    ]
    width = max(len(command) for command, _ in commands) + 2
    taught = [f"#   {command:<{width}}{why}" for command, why in commands]
    head = [f"# {name}: a copy of the shipped workflow '{source}', for you to edit.", "#", *taught]
    text = _NAME.sub(f"name: {name}", text, count=1)
    return "\n".join([*head, "#", HOW, text])
