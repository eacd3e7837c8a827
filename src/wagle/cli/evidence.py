"""The commands ``wagle commit``, ``evidence``, ``audit`` and ``purge``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

from wagle.system.errors import WagleError

Forget = Annotated[
    Optional[list[str]],
    typer.Option(
        "--forget",
        help="The records to forget: a file, or demo:forget; repeatable, in the recipe's order.",
    ),
]
Secret = Annotated[
    Optional[str],
    typer.Option("--secret", help="The secret key of the commitment: a private file."),
]
Commitment = Annotated[
    Optional[str],
    typer.Option("--commitment", help="A commitment that was made before."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")]


def add_evidence(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    for name, function in (
        ("commit", commit),
        ("evidence", evidence_command),
        ("audit", audit),
        ("purge", purge),
    ):
        app.command(name=name)(function)


def commit(
    source: Annotated[
        str,
        typer.Argument(metavar="RECIPE|MODEL", help="A recipe, a run folder, or a model folder."),
    ],
    forget: Forget = None,
    out: Annotated[
        Optional[str],
        typer.Option("-o", "--out", help="The file to write; default commitment.json."),
    ] = None,
    secret: Secret = None,
    probes: Annotated[
        Optional[int],
        typer.Option("--probes", help="How many records an audit asks about; default a quarter."),
    ] = None,
) -> None:
    """Commit to what will be forgotten, before it is: a keyed root, fingerprints and limits.

    Reads the recipe and its records, or with --forget a model and records; writes the commitment,
    which you publish or hand over now, and its secret key, which you keep. For a run folder both go
    into it, the key into private/.

    Example:  wagle commit runs/demo
    """
    from wagle.run.finding import find_run

    run = None
    if forget is None:
        recipe, folder = find_run(source, [], None)
        run = folder if (folder / "recipe.yaml").is_file() and folder == Path(source) else None
    from wagle.evidence import commitment as made_by

    made = (
        made_by.commit_model(source, forget, probes)
        if forget
        else made_by.commit_recipe(recipe, folder, probes)
    )
    target = Path(out) if out else (run or Path()) / made_by.FILE
    beside = run / "private" if run and not out else target.parent
    key = Path(secret) if secret else beside / made_by.SECRET
    made_by.write_commitment(made, target, key)
    print(f"commitment  {target}: {made_by.digest_of(made.commitment)}")
    print(f"secret key  {key}: keep it; an auditor gets it together with the records")


def evidence_command(
    folder: Annotated[
        Optional[str], typer.Argument(metavar="[RUN]", help="A finished run folder.")
    ] = None,
    out: Annotated[
        Optional[str],
        typer.Option("-o", "--out", help="The pack to write: a folder, or a name in .zip."),
    ] = None,
    key: Annotated[
        Optional[str], typer.Option("--key", help="The private key (Ed25519, PEM) that signs.")
    ] = None,
    new_key: Annotated[
        Optional[str],
        typer.Option("--new-key", help="Make a private key in this file, and its .pub beside it."),
    ] = None,
    commitment: Commitment = None,
    secret: Secret = None,
) -> None:
    """Write a pack that a stranger can check: claim, commitment, figures, limits, signature.

    Reads the run folder; writes one folder or zip, without records. Without a commitment in the run
    one is made now, and the claim says so. With --new-key and no RUN only the key is made.

    Example:  wagle evidence runs/demo -o demo-evidence.zip --key maker.pem
    """
    if key and new_key:
        raise WagleError("give --key or --new-key, not both")
    if folder is None and not new_key:
        raise WagleError("name a run folder, or make a key with --new-key FILE")
    if folder is not None and (out is None or not (key or new_key)):
        raise WagleError("give -o PACK and --key FILE; make a key with --new-key FILE")
    if new_key:
        from wagle.evidence.signing import new_key as make_key
        from wagle.evidence.signing import public_path

        make_key(new_key)
        print(f"key         {new_key}; others pin {public_path(new_key)}")
    if folder is None or out is None:
        return
    from wagle.evidence.collecting import collect_evidence

    claim = collect_evidence(
        folder, out, key=key or new_key or "", commitment=commitment, secret=secret
    )
    print(f"pack        {out}: {claim['verdict']}")
    print(f"commitment  {claim['commitment']['digest']}, made {claim['commitment']['when']}")


def audit(
    pack: Annotated[str, typer.Argument(metavar="PACK", help="The folder or zip to check.")],
    model: Annotated[
        Optional[str], typer.Option("--model", help="The model that is said to have forgotten.")
    ] = None,
    forget: Forget = None,
    nonce: Annotated[
        Optional[str],
        typer.Option("--nonce", help="Drawn by you, after the commitment: openssl rand -hex 16"),
    ] = None,
    secret: Secret = None,
    base: Annotated[
        Optional[str],
        typer.Option("--base", help="The model before unlearning, which must fail the probes."),
    ] = None,
    reference: Annotated[
        Optional[str], typer.Option("--reference", help="The model that never learned the records.")
    ] = None,
    questions: Annotated[
        Optional[str],
        typer.Option("--questions", help="A file of your own questions, with their answers."),
    ] = None,
    public_key: Annotated[
        Optional[str],
        typer.Option("--public-key", help="Refuse a pack that is not signed by this key."),
    ] = None,
    commitment: Commitment = None,
    as_json: Json = False,
) -> None:
    """Check a pack: signature, digests, commitment and models, and ask the model anew.

    Reads the pack and what you give; writes nothing. Exit code 0: confirmed; 1: refused, a forgery
    or a leak; 2: bad input; 3: inconclusive. Without --forget nothing is asked, so it is 3 at best.

    Example:  wagle audit demo-evidence.zip --model model/ --base base/ --forget forget.jsonl
    --secret commitment.secret --nonce 4f1d2c93a05be771
    """
    from wagle.evidence.auditing import Given, audit_pack
    from wagle.report.text.evidence import audit_lines

    given = Given(
        model,
        tuple(forget or ()),
        secret,
        nonce,
        base,
        reference,
        questions,
        public_key,
        commitment,
    )
    found = audit_pack(pack, given)
    told = found.to_json()
    print(json.dumps(told, indent=2) if as_json else audit_lines(told))
    if found.code:
        raise typer.Exit(found.code)


def purge(
    folder: Annotated[str, typer.Argument(metavar="RUN", help="A run folder.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be deleted.")
    ] = False,
    keep_base: Annotated[
        bool,
        typer.Option("--keep-base", help="Keep base/, whose weights know the records."),
    ] = False,
    receipt_key: Annotated[
        Optional[str],
        typer.Option("--receipt-key", help="Write the key of the receipt's digests to this file."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Delete everything in a run that holds records or old values, and enter a receipt.

    Reads the run folder; deletes private/ and base/, and writes report and log without texts and
    the receipt into the ledger. Exit code 1 if a file still holds text of the records: it is named.

    Example:  wagle purge runs/demo --dry-run
    """
    from wagle.evidence.deletion.purging import purge_run
    from wagle.report.text.evidence import receipt_lines

    found = purge_run(folder, keep_base=keep_base, dry_run=dry_run, receipt_key=receipt_key)
    print(json.dumps(found, indent=2) if as_json else receipt_lines(found, not dry_run))
    if found["left"]:
        raise typer.Exit(1)
