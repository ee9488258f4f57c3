"""A finished experiment as an RO-Crate: what was found, the records, and which step made what from what, as JSON-LD.

It follows RO-Crate 1.1 and its Process Run Crate profile 0.5. Large outputs stay where they are and are named by their digests.
"""

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rlphf.errors import InputError
from rlphf.files import atomic_file, atomic_folder, read_json, sha256, write_text
from rlphf.tracking.entries import entries
from rlphf.tracking.lineage import Used, read_made
from rlphf.tracking.record import METRICS, RECORD, WORKFLOW

METADATA = "ro-crate-metadata.json"
CONTEXT = ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"]
CRATE, PROFILE = "https://w3id.org/ro/crate/1.1", "https://w3id.org/ro/wfrun/process/0.5"
COMPLETED = "http://schema.org/CompletedActionStatus"
FORMATS = {
    ".parquet": "application/vnd.apache.parquet",
    ".csv": "text/csv",
    ".md": "text/markdown",
    ".png": "image/png",
    ".pdf": "application/pdf",
    ".ipynb": "application/x-ipynb+json",
    ".yaml": "application/yaml",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".txt": "text/plain",
}

Thing = dict[str, Any]


def packed(results: Path) -> list[str]:
    """Return the files of an experiment's folder that its crate holds, relative to it, sorted."""
    found = [path for kind in ("tables", "figures") for path in (results / kind).rglob("*")]
    found += [results / "summary.txt", results / WORKFLOW]
    # Folders of data and checkpoints are not looked into.
    for pattern in (f"**/{RECORD}", f"**/{METRICS}", "seed-*/config.yaml", "seed-*/mistakes/*/config.yaml"):
        found += results.glob(pattern)
    found += results.glob("seed-*/ablations/*/config.yaml")
    names = {path.relative_to(results).as_posix() for path in found if path.is_file()}
    return sorted(name for name in names if name == WORKFLOW or not any(part.startswith(".") for part in Path(name).parts))


def metadata(results: Path) -> Thing:
    """Return the JSON-LD of a finished experiment's crate; raise InputError where its last start did not finish."""
    workflow = read_json(results / WORKFLOW)
    try:
        name, end, status = workflow["experiment"], workflow["end"], workflow["status"]
        workflow = {**workflow, "id": str(workflow["id"]), "start": workflow["start"]}
    except (KeyError, TypeError):
        raise InputError(f"{results / WORKFLOW}: is no record of a workflow; run the experiment again") from None
    if status != "finished":
        raise InputError(f"{results}: its last start is {status!r}; only a finished experiment is packed, so run it to the end")
    files, base = packed(results), Path(os.path.abspath(results))
    things = {quote(file): _file(base, file) for file in files}
    parts = list(map(reference, things))
    current = [entry for entry in entries(base) if entry.path.relative_to(base).as_posix() in files and entry.path.name == RECORD]
    steps = [made for entry in current if (made := read_made(entry)) is not None]
    actions = []
    for made in sorted(steps, key=lambda made: (str(made.record.get("start")), made.id)):
        used, written = ([_named(one, base, things) for one in many] for many in (made.inputs, made.outputs))
        place = quote((made.folder / RECORD).relative_to(base).as_posix())
        actions.append(_action(made.record, f"rlphf {made.step}", used, written, place, things))
    # The start as a whole made tables, figures and the summary from the configurations.
    own = [one for one in map(quote, files) if not one.endswith((RECORD, METRICS))]
    configs = [reference(one) for one in own if one.endswith("/config.yaml")]
    found = [reference(one) for one in own if one.startswith(("tables/", "figures/", "summary.txt"))]
    actions.append(_action(workflow, f"rlphf workflow {name}", configs, found, WORKFLOW, things))
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"rlphf experiment {name}",
        "description": f"Tables, figures, configurations and records of the experiment {name!r}, and which step made what.",
        "datePublished": end,
        "license": "Not stated by the experiment; ask who published it.",
        "conformsTo": reference(PROFILE),
        "hasPart": parts,
        "mentions": [reference(action["@id"]) for action in actions],
    }
    about = {"@id": METADATA, "@type": "CreativeWork", "conformsTo": reference(CRATE), "about": reference("./")}
    profile = {"@id": PROFILE, "@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
    return {"@context": CONTEXT, "@graph": [about, root, profile, *things.values(), *actions]}


def reference(name: str) -> Thing:
    """Return JSON-LD's way to point to another entity."""
    return {"@id": name}


def _file(base: Path, name: str) -> Thing:
    size, form = str((base / name).stat().st_size), FORMATS.get(Path(name).suffix, "application/octet-stream")
    about = {"@id": quote(name), "@type": "File", "name": name, "contentSize": size, "encodingFormat": form}
    return about | {"sha256": sha256(base / name)}


def _named(used: Used, base: Path, things: dict[str, Thing]) -> Thing:
    """Return a reference to what a step used; what the crate does not hold as it was then is an entity with path and digest."""
    inside = used.path.is_relative_to(base)
    name = Path(os.path.relpath(used.path, base if inside else Path.cwd())).as_posix()
    if inside and things.get(quote(name), {}).get("sha256") == used.sha256:
        return reference(quote(name))
    key = f"#{quote(name)}:{used.sha256[:12]}"
    things.setdefault(key, {"@id": key, "@type": "CreativeWork", "name": name, "sha256": used.sha256})
    return reference(key)


def _software(name: str, version: str, things: dict[str, Thing]) -> Thing:
    key = f"#{quote(f'{name}-{version}')}"
    things.setdefault(key, {"@id": key, "@type": "SoftwareApplication", "name": name, "softwareVersion": version})
    return reference(key)


def _action(record: Thing, name: str, used: list[Thing], made: list[Thing], place: str, things: dict[str, Thing]) -> Thing:
    """Return the action that a record speaks of; the record, the file `place`, has its settings and says what it is about."""
    key = f"#{record['id']}"
    changes = " with changes" if record.get("git_dirty") else ""
    software = _software(name, f"{record.get('git_commit', 'unknown')}{changes}", things)
    libraries = [_software(library, version, things) for library, version in sorted(record.get("versions", {}).items())]
    if libraries:
        things[software["@id"]]["softwareRequirements"] = libraries
    things[place]["about"] = reference(key)
    return {
        "@id": key,
        "@type": "CreateAction",
        "name": name,
        "description": f"{name}, with the settings that {place} has",
        "instrument": software,
        "object": used,
        "result": made,
        "startTime": record.get("start"),
        "endTime": record.get("end"),
        "actionStatus": COMPLETED,
        "subjectOf": reference(place),
    }


def crate_step(results: Path, out: Path) -> None:
    """Write the crate of the finished experiment in the folder `results` to `out`: a .zip, else a folder.

    Equal results give equal bytes. Raises InputError where nothing finished, or a folder `out` is there that is no crate.
    """
    if not results.is_dir():
        raise InputError(f"{results}: no such folder; give the experiment's folder, such as results/demo")
    if not (results / WORKFLOW).exists():
        raise InputError(f"{results}: is no experiment's folder; give one such as results/demo")
    text = json.dumps(metadata(results), indent=2, ensure_ascii=False) + "\n"
    files = packed(results)
    if out.suffix == ".zip":
        with atomic_file(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            # A fixed date, as an archive would have that of its making.
            archive.writestr(_member(METADATA), text)
            for name in files:
                archive.writestr(_member(name), (results / name).read_bytes())
    else:
        if out.exists() and not (out / METADATA).is_file() and (out.is_file() or any(out.iterdir())):
            raise InputError(f"{out}: is there and no crate; give a new folder, or FILE.zip")
        with atomic_folder(out) as folder:
            write_text(folder / METADATA, text)
            for name in files:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(results / name, folder / name)
    print(f"{out}: {len(files)} files and {METADATA}")


def _member(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    member.compress_type = zipfile.ZIP_DEFLATED
    member.external_attr = 0o644 << 16
    return member
