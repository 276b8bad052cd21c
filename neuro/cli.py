"""The command line: every command is one thin function; the logic is in the modules it calls."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from neuro import console
from neuro.console import guarded
from neuro.runner.cores import let_threads_sleep

app = typer.Typer(
    name="neuro",
    help="From raw recordings to disentangled, readable codes, by one YAML file.\n\n"
    "Example: neuro run eeg-beta-vae",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Cluster(StrEnum):
    """Where stages are computed."""

    local = "local"
    slurm = "slurm"
    auto = "auto"


Workflow = Annotated[
    str, typer.Argument(metavar="NAME|PATH", help="A shipped workflow's name, or a YAML file.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a field (encoder.beta=1) or an input before validation; may be repeated.",
    ),
]
Until = Annotated[
    str | None, typer.Option(metavar="STAGE", help="Stop when this stage's result is in.")
]
Force = Annotated[
    list[str] | None,
    typer.Option(metavar="STAGE", help="Compute this stage anew; may be repeated."),
]
Cache = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR", help="Where results are kept. Default: $NEURO_CACHE, or .cache in --out."
    ),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Where run folders go.")]
RUNS = Path("runs")
_MOST_ROWS = 40  # of decoded recordings


def main() -> None:
    """Run the command line (the console script ``neuro``)."""
    let_threads_sleep()
    words = sys.argv[1:]
    own = words[: words.index("--")] if "--" in words else words
    if "--debug" in own:  # allowed anywhere, as people add it behind a command that failed
        words.remove("--debug")
        words.insert(0, "--debug")
    try:
        app(args=words)
    except KeyboardInterrupt:
        console.complain("Interrupted.", prefix="")
        sys.exit(console.INTERRUPTED)


def _version(asked: bool) -> None:
    if asked:
        import neuro

        console.say(f"neuro {neuro.__version__}")
        raise typer.Exit


@app.callback()
def _settings(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    console.Settings.debug = debug


def _cache(cache: Path | None, out: Path) -> Path:
    named = os.environ.get("NEURO_CACHE")
    return cache or (Path(named) if named else out / ".cache")


@app.command()
@guarded
def run(
    workflow: Workflow,
    sets: Sets = None,
    until: Until = None,
    force: Force = None,
    n_jobs: Annotated[
        int, typer.Option("--n-jobs", "-j", metavar="N", help="Items or members at once.")
    ] = 1,
    cluster: Annotated[
        Cluster | None,
        typer.Option(
            help="Where stages are computed, unless their `compute:` says; default local."
            " slurm is passed on to the engine and not proven yet."
        ),
    ] = None,
    cache: Cache = None,
    out: Out = RUNS,
) -> None:
    """Run a workflow: compute what is not in the cache, write the run folder and its report.

    Example: neuro run eeg-beta-vae --set encoder.beta=1 -j 2
    """
    from neuro.runner.run import run as run_workflow

    folder = run_workflow(
        workflow,
        sets=sets or [],
        until=until,
        force=force or [],
        n_jobs=n_jobs,
        cluster=cluster.value if cluster else None,
        cache=_cache(cache, out),
        out=out,
    )
    console.say(console.short(folder / "report.html"))


@app.command()
@guarded
def plan(
    workflow: Workflow,
    sets: Sets = None,
    until: Until = None,
    force: Force = None,
    cache: Cache = None,
    out: Out = RUNS,
) -> None:
    """Show what a run would do: which stages are in the cache, and why the others run.

    Example: neuro plan eeg-beta-vae --set encoder.beta=1
    """
    from neuro.runner.plan import make_plan
    from neuro.runner.schema import load_workflow
    from neuro.runner.store import Store

    loaded = load_workflow(workflow, sets=sets or [])
    made = make_plan(loaded, Store(_cache(cache, out)), until=until, force=force or [])
    rows = [(s.name, s.stage, s.status, _to_compute(s), s.reason) for s in made.steps]
    console.table(
        ("stage", "use", "status", "to compute", "reason"),
        rows,
        styles=lambda row: "dim" if row[2] == "cached" else None,
    )


def _to_compute(step: Any) -> str:
    return "?" if step.key is None else f"{step.n_missing} of {step.n_tasks}"


@app.command()
@guarded
def check(workflow: Workflow, sets: Sets = None) -> None:
    """Validate a workflow file without running anything.

    Example: neuro check my-study.yaml
    """
    from neuro.runner.schema import load_workflow

    loaded = load_workflow(workflow, sets=sets or [])
    count = len(loaded.nodes)
    console.say(f"{workflow}: ok, {count} stage{'s' if count > 1 else ''}")


@app.command()
@guarded
def stages(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One stage.")] = None,
) -> None:
    """List the stages that a workflow can use, or one stage's help and fields.

    Example: neuro stages eeg-epochs
    """
    from neuro.runner.describe import heading, summaries
    from neuro.runner.registry import broken, get_stage

    if name is None:
        console.table(("stage", "takes", "gives", "what it does"), summaries())
        for package, why in broken().items():
            console.complain(f"{package} can't be loaded: {why}", prefix="Warning: ")
        return
    stage = get_stage(name)
    console.say(heading(stage))
    _show_fields(stage.params)


def _show_fields(model: type[Any], dashes: bool = False) -> None:
    from neuro.options import describe

    def shown(name: str) -> str:
        return f"--{name.replace('_', '-')}" if dashes else name

    rows = [(shown(f.name), f.type, f.default, f.doc) for f in describe(model)]
    if rows:
        console.table(("option" if dashes else "field", "type", "default", "meaning"), rows)


@app.command()
@guarded
def schema(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Write here, not to stdout.")
    ] = None,
) -> None:
    """Write the JSON Schema of workflow files, by which editors complete and check them.

    Example: neuro schema .vscode/neuro.schema.json
    """
    import json

    from neuro.errors import InputError
    from neuro.runner.schema import json_schema

    text = json.dumps(json_schema(), indent=2, ensure_ascii=False)
    if file is None:
        console.say(text)
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"'{file}' can't be written: {error.strerror}") from error
    console.say(str(file))


@app.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@guarded
def decode(
    ctx: typer.Context,
    encoder: Annotated[
        Path | None,
        typer.Argument(metavar="ENCODER", help="An encoder's folder, such as runs/NAME/encoder."),
    ] = None,
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILES...", help="Recordings, or quoted globs.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where results and the index decoded.tsv go."),
    ] = None,
    options: Annotated[
        bool, typer.Option("--options", help="List this encoder's own options.")
    ] = False,
    show_help: Annotated[
        bool, typer.Option("--help", "-h", help="Show this message, with the encoder's options.")
    ] = False,
) -> None:
    """Decode new recordings with a fitted encoder; every file gives one .zarr and one .tsv.

    What is decoded already is skipped. A bad file is reported and the others go on (exit code 1).
    The encoder's own options (--NAME VALUE) are listed by --options.

    Example: neuro decode runs/eeg-beta-vae/encoder new/*.fif --out decoded/
    """
    from neuro.errors import InputError

    if show_help or (encoder is None and not files):
        console.say(ctx.get_help())
    if encoder is None:
        if show_help:
            return
        raise InputError("name an encoder's folder, the recordings, and --out")
    if options or show_help:
        _show_options(encoder)
        return
    _decode(encoder, files or [], out)


def _show_options(encoder: Path) -> None:
    import neuro

    model = type(neuro.load(encoder)).DecodeOptions
    if not model.model_fields:
        console.say(f"{encoder} has no options of its own.")
    _show_fields(model, dashes=True)


def _decode(encoder: Path, files: list[str], out: Path | None) -> None:
    import neuro
    from neuro import decode as decoding
    from neuro.errors import InputError
    from neuro.options import split_options

    loaded = neuro.load(encoder)
    own = ("out", "options", "help", "debug")
    names, chosen = split_options(files, type(loaded).DecodeOptions, own)
    if out is None:
        raise InputError("say where the results go: --out DIR")
    outcomes = console.counted(
        decoding.expand(names),
        lambda paths, told: decoding.decode(
            loaded, paths, out, chosen, identity=decoding.folder_digest(encoder), told=told
        ),
        label="decode",
    )
    _show_notes(decoding.table(outcome.row for outcome in outcomes))
    for line in decoding.complaints(outcomes):
        console.complain(line, prefix="")
    console.say(decoding.summary(outcomes, out))
    if any(outcome.row.status == "failed" for outcome in outcomes):
        raise typer.Exit(console.FAILED)


def _show_notes(rows: list[dict[str, Any]]) -> None:
    """Show a line for each recording where the encoder has something to say of them."""
    noted = [row for row in rows if row["note"] and row["status"] == "done"]
    if not noted:
        return
    shown = noted[:_MOST_ROWS]
    console.table(tuple(shown[0]), [tuple(row.values()) for row in shown])
    if len(noted) > len(shown):
        console.say(f"and {len(noted) - len(shown)} more, in decoded.tsv")


@app.command()
@guarded
def report(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or its name.")],
    out: Out = RUNS,
) -> None:
    """Build report.html of a finished run again and say where it is.

    Example: neuro report runs/eeg-beta-vae
    """
    from neuro.runner.compare import find_run
    from neuro.runner.run import rebuild_report

    folder = find_run(run, out)
    rebuild_report(folder)
    console.say(console.short(folder / "report.html"))


@app.command()
@guarded
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The YAML file to write.")],
    source: Annotated[str, typer.Option("--from", metavar="NAME", help="The workflow to copy.")],
) -> None:
    """Copy a shipped workflow, with a header that tells how to edit it.

    Example: neuro new my-study.yaml --from eeg-beta-vae
    """
    from neuro.runner.new import new_workflow
    from neuro.runner.schema import find_workflow

    new_workflow(file, find_workflow(source))
    console.say(f"{file}: edit it, then `neuro check {file}`")


@app.command()
@guarded
def doctor(cache: Cache = None, out: Out = RUNS) -> None:
    """Say what is installed and what is missing, and what to do about it.

    Exit code 1 where something is missing without which nothing runs.

    Example: neuro doctor
    """
    from neuro.doctor import examine

    styles = {"missing": "bold red", "note": "yellow"}
    findings = examine(out, _cache(cache, out))
    console.table(
        ("", "what", "found", "what to do"),
        [(f.status, f.what, f.found, f.advice) for f in findings],
        styles=lambda row: styles.get(str(row[0])),
    )
    missing = [f.what for f in findings if f.status == "missing"]
    console.say(f"\nMissing: {', '.join(missing)}." if missing else "\nNothing is missing.")
    if missing:
        raise typer.Exit(console.FAILED)


@app.command()
@guarded
def compare(
    first: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, or its name.")],
    second: Annotated[str, typer.Argument(metavar="RUN", help="The run to hold against it.")],
    out: Out = RUNS,
) -> None:
    """Compare two runs: metrics side by side, and paired differences of their predictions.

    Differences are second minus first; intervals (95 %) are bootstrapped over units.

    Example: neuro compare runs/beta-1 runs/beta-4
    """
    from neuro.errors import InputError
    from neuro.runner import compare as comparing

    folders = [comparing.find_run(name, out) for name in (first, second)]
    _show_metrics(comparing.metrics(*folders))
    try:
        found = comparing.differences(*folders)
    except InputError as error:
        console.complain(str(error), prefix="No paired differences: ")
        return
    _show_differences(found)


def _show_metrics(metrics: list[Any]) -> None:
    def side(entry: dict[str, Any] | None) -> str:
        entry = entry or {}
        ends = console.interval(entry.get("low"), entry.get("high"))
        return f"{console.number(entry.get('value'))} {ends}".strip()

    rows = [(m.name, side(m.first), side(m.second), console.number(m.difference)) for m in metrics]
    console.table(("metric", "first", "second", "difference"), rows, numbers=("difference",))


def _show_differences(found: list[Any]) -> None:
    rows = []
    for d in found:
        e = d.estimate
        ends, p = console.interval(e.low, e.high), console.number(e.p)
        paired = f"{d.n_items} ({d.n_unpaired} unpaired)" if d.n_unpaired else d.n_items
        rows.append((d.target, d.measure, console.number(e.value), ends, p, e.n, paired))
    headers = ("target", "measure", "second - first", "95 % interval", "p", "units", "items")
    console.say("")
    console.table(headers, rows, title="Paired differences", numbers=headers[2:])


@app.command()
@guarded
def clean(
    stage: Annotated[
        list[str] | None,
        typer.Option(metavar="STAGE", help="Results of this stage (as in `use:`); repeatable."),
    ] = None,
    unused: Annotated[
        bool, typer.Option("--unused", help="What no latest run shows or uses.")
    ] = False,
    older: Annotated[
        str | None, typer.Option(metavar="AGE", help="Older than 30d, 12h, 2w.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything.")] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Remove; without it, only say what would go.")
    ] = False,
    cache: Cache = None,
    out: Out = RUNS,
) -> None:
    """List what lies in the cache, and with --yes remove what the other options choose.

    Conditions add up: --unused --older 30d means both. Run folders keep their reports, metrics
    and encoders; links of older runs to datasets that are removed end nowhere.

    Example: neuro clean --unused --older 30d --yes
    """
    from neuro.runner import clean as cleaning
    from neuro.runner.store import Store

    store = Store(_cache(cache, out))
    found = cleaning.entries(store, out)
    chosen = cleaning.select(
        found, stages=stage or [], unused=unused, older=older, everything=everything
    )
    asked = bool(stage or unused or older or everything)
    rows = cleaning.by_stage(chosen if asked else found)
    console.table(
        ("stage", "results", "size", "not in use", "newest"),
        [
            (r[0], r[1], console.size(r[2]), console.size(r[3]), f"{r[4]:%Y-%m-%d %H:%M}")
            for r in rows
        ],
        numbers=("results", "size", "not in use"),
    )
    _clean(store, chosen if asked else found, asked, yes)


def _clean(store: Any, listed: list[Any], asked: bool, yes: bool) -> None:
    from neuro.errors import InputError
    from neuro.runner.clean import remove

    total = console.size(sum(entry.n_bytes for entry in listed))
    if not asked:
        if yes:
            raise InputError("say what to remove: --unused, --stage NAME, --older AGE or --all")
        console.say(f"{store.cache}: {total} in all")
    elif not yes:
        console.say(f"{len(listed)} results, {total}, would be removed; add --yes to do it")
    else:
        freed = remove(store, listed)
        console.say(f"{len(listed)} results removed, {console.size(freed)} freed")


if __name__ == "__main__":
    main()
