"""A commented copy of a shipped workflow, to be edited (``neuro new``)."""

from __future__ import annotations

import re
from pathlib import Path

from neuro.errors import InputError

_NAME = re.compile(r"^name:\s*[^\s#]+", re.MULTILINE)

HEADER = """\
# {file}: a copy of the shipped workflow '{source}', for you to edit.
#
#   neuro check {file}                 after every change: names the line and what is wrong
#   neuro plan {file}                  what would run, what is in the cache, and why
#   neuro run {file}                   runs what is not in the cache; results go to runs/{name}
#   neuro run {file} --set STAGE.FIELD=VALUE      tries a value without editing
#   neuro stages                       every stage there is; `neuro stages NAME` lists its fields
#
# How to edit: change a stage's fields, take a stage out, or add one and wire it with ${{stage}}.
# Paths are relative to this file. What you leave out has the default that `neuro stages` shows.

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
    name = re.sub(r"[^\w.-]+", "-", file.stem)
    shown = f"'{file}'" if " " in str(file) else str(file)
    header = HEADER.format(file=shown, name=name, source=source.stem)
    text = _NAME.sub(f"name: {name}", source.read_text(encoding="utf-8"), count=1)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as stream:
            stream.write(header + text)
    except FileExistsError as error:
        raise InputError(f"'{file}' exists and is not overwritten; choose another name") from error
    except OSError as error:
        raise InputError(f"'{file}' can't be written: {error.strerror}") from error
    return name
