"""Rule P7 for spoofing protocols: the list says what it seems to say."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pyarrow as pa

from glottis.data._files import some
from glottis.data.findings import Finding, raise_stops
from glottis.data.manifest import Manifest
from glottis.data.manifest_check import TEXT
from glottis.data.protocols import Protocol


def check_protocol(protocol: Protocol, manifest: Manifest | None = None) -> list[Finding]:
    """Everything about a protocol that would make its numbers wrong (P7)."""
    findings = []
    bonafide = int(protocol.bonafide.sum())
    if bonafide in (0, len(protocol)):
        seen = f"{bonafide} bona fide and {len(protocol) - bonafide} spoofed utterances"
        findings.append(
            Finding("P7", "stop", seen, "an EER needs both", "add the corpus with the other class")
        )
    names, counts = np.unique(protocol.utterance.astype(str), return_counts=True)
    twice = names[counts > 1].tolist()
    if twice:
        findings.append(
            Finding("P7", "stop", f"{len(twice)} utterances stand twice: {some(twice)}")
        )
    named = protocol.bonafide & (protocol.attack != "")
    if named.any():
        findings.append(
            Finding(
                "P7",
                "stop",
                f"{int(named.sum())} bona fide utterances have an attack: "
                f"{some(protocol.utterance[named].tolist())}",
                "the label or the attack is wrong",
            )
        )
    if manifest is not None:
        findings += _check_protocol_against(protocol, manifest)
    return findings


def require_protocol(
    protocol: Protocol, manifest: Manifest | None = None, allow: Collection[str] = ()
) -> None:
    """`check_protocol`, with one error for everything that must stop a run."""
    raise_stops(check_protocol(protocol, manifest), protocol.source, allow)


def _check_protocol_against(protocol: Protocol, manifest: Manifest) -> list[Finding]:
    rows = manifest.find(pa.array(protocol.utterance, TEXT), protocol.source)
    findings = []
    unknown = protocol.utterance[rows < 0].tolist()
    if unknown:
        seen = f"{len(unknown)} of {len(protocol)} utterances are not in the manifest: "
        findings.append(
            Finding("P7", "stop", seen + some(unknown), "they cannot be scored", "complete it")
        )
    known = rows >= 0
    for name, mine in (("label", protocol.label), ("speaker", protocol.speaker)):
        theirs = manifest.column(name)[rows]
        differs = known & (theirs != "") & (mine != "") & (theirs != mine)
        if differs.any():
            findings.append(
                Finding(
                    "P7",
                    "stop",
                    f"{int(differs.sum())} utterances have another {name} in the manifest: "
                    f"{some(protocol.utterance[differs].tolist())}",
                    "either the protocol or the manifest is wrong",
                    "correct the one that is",
                )
            )
    return findings
