"""Lay out the cases of a page: cards with pictures, and the viewer that scrolls the opened one in a browser.

The viewer is brainsprite (templates/brainsprite.min.js, MIT). The file is kept here because nilearn, which
ships it, would bring 12 MB and eight further packages for it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from voxlift.app.report.case_pictures import MAP_OPACITY, MASK_COLOUR, case_picture, colour_bar, map_colours
from voxlift.app.report.cases import Case, merge_sprites, share_planes
from voxlift.app.report.pages import read_script
from voxlift.app.report.sprites import MAX_BYTES, MAX_SIDE, encode_sprite

SCRIPTS = ("brainsprite.min.js", "viewer.js")
SORTS = {
    "error": "largest error",
    "confidence": "highest probability of the decision",
    "disagreement": "largest disagreement of the models",
}

CaseModels = Mapping[str, Case]
"""The case of each model for one volume; a single model has the name ""."""


@dataclass(frozen=True)
class CaseGroup:
    """Cards under one heading.

    Attributes:
        heading: Above them; empty: none.
        cards: Values for the template, one for each volume.
    """

    heading: str
    cards: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class CaseSection:
    """The cases of a page.

    Attributes:
        groups: The cards.
        viewer: Values for the viewer; None for pictures alone.
        has_maps: Whether a picture has a map.
        has_masks: Whether a picture has a mask.
        bar: Picture of the colours of a map; empty without maps.
    """

    groups: Sequence[CaseGroup] = ()
    viewer: Mapping[str, Any] | None = None
    has_maps: bool = False
    has_masks: bool = False
    bar: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether there is no case at all."""
        return not any(group.cards for group in self.groups)


def lay_out_cases(
    groups: Sequence[tuple[str, Sequence[CaseModels]]], *, is_interactive: bool = True
) -> CaseSection:
    """Return the cases of a page, in the order given.

    Args:
        groups: Heading and volumes; of each volume the case of every model.
        is_interactive: Whether the page has a viewer; it needs the whole volumes.
    """
    shown = [(heading, [share_planes(volume) for volume in volumes]) for heading, volumes in groups]
    volumes = [volume for _, of_group in shown for volume in of_group]
    cases = [case for volume in volumes for case in volume.values()]
    has_voxels = bool(cases) and all(case.sprite is not None for case in cases)
    viewer = build_viewer(volumes) if is_interactive and has_voxels else None
    laid, start = [], 0
    for heading, of_group in shown:
        numbered = enumerate(of_group, start=start)
        laid.append(
            CaseGroup(heading, [_card(i, volume, is_open=viewer is not None) for i, volume in numbered])
        )
        start += len(of_group)
    has_maps = any(case.maps for case in cases)
    return CaseSection(
        groups=laid,
        viewer=viewer,
        has_maps=has_maps,
        has_masks=any(case.masks for case in cases),
        bar=colour_bar() if has_maps else "",
    )


def build_viewer(volumes: Sequence[CaseModels]) -> dict[str, Any]:
    """Return what the template of the viewer needs: voxels, scripts and their hashes, sorting and filters."""
    cases = [_case_data(volume) for volume in volumes]
    data = {
        "cases": cases,
        "colours": map_colours().tolist(),
        "mask": [round(255 * part) for part in MASK_COLOUR],
    }
    text = json.dumps(data).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    scripts, sources = zip(*map(read_script, SCRIPTS), strict=True)
    sprites = [case.sprite for volume in volumes for case in volume.values() if case.sprite is not None]
    numbers = [_numbers(volume) for volume in volumes]
    return {
        "data": Markup(text),  # noqa: S704 - JSON without the characters that HTML reads
        "scripts": scripts,
        "policy": " ".join(sources),
        "count": len(cases),
        "size": f"{len(text) / 1e6:.1f} MB",
        "side": MAX_SIDE,
        "opacity": round(100 * MAP_OPACITY),
        "has_values": all(sprite.has_units for sprite in sprites),
        "sorts": [
            ("", "as listed"),
            *((key, name) for key, name in SORTS.items() if all(key in one for one in numbers)),
        ],
        "filters": _find_filters(cases),
    }


def _case_data(volume: CaseModels) -> dict[str, Any]:
    first = next(iter(volume.values()))
    merged = merge_sprites(volume) if len(volume) > 1 else first.sprite
    if merged is not None:
        views = [{"name": "", **encode_sprite(merged)}]
    else:
        limit = MAX_BYTES // len(volume)
        views = [
            {"name": name, **encode_sprite(case.sprite, limit=limit)}
            for name, case in volume.items()
            if case.sprite is not None
        ]
    return {
        "subject": first.subject,
        "text": "; ".join([first.truth, *_lines(volume)]),
        "views": views,
        "facts": _facts(volume),
    }


def _lines(volume: CaseModels) -> list[str]:
    """Return what each model decided; nothing where there is no true label."""
    return [
        f"{name}: {case.decided}" if name else case.decided for name, case in volume.items() if case.decided
    ]


def _facts(volume: CaseModels) -> dict[str, str]:
    """Return what the list is filtered by: class, grade or finding, decision, the groups of the subject."""
    first = next(iter(volume.values())).facts
    judged = [case.facts.is_wrong for case in volume.values() if case.facts.is_wrong is not None]
    found = {first.noun: first.outcome} if first.outcome else {}
    if judged and len(volume) == 1:
        found["Decision"] = "wrong" if judged[0] else "correct"
    elif judged:
        found["Decision"] = "all wrong" if all(judged) else "some wrong" if any(judged) else "all correct"
    return found | dict(first.groups)


def _numbers(volume: CaseModels) -> dict[str, float]:
    """Return what the list is sorted by, as far as it is known."""
    facts = [case.facts for case in volume.values()]
    errors = [one.error for one in facts if one.error is not None]
    confident = [one.confidence for one in facts if one.confidence is not None]
    rated = [one.rated for one in facts if one.rated is not None]
    found = {"error": max(errors)} if errors else {}
    found |= {"confidence": max(confident)} if confident else {}
    return found | ({"disagreement": max(rated) - min(rated)} if len(rated) > 1 else {})


def _card(index: int, volume: CaseModels, *, is_open: bool) -> dict[str, Any]:
    first = next(iter(volume.values()))
    has_maps = any(case.maps for case in volume.values())
    drawn = volume if has_maps else dict(list(volume.items())[:1])
    is_shared = merge_sprites(volume) is not None  # the bare planes of all models are the same
    return {
        "index": index,
        "subject": first.subject,
        "truth": first.truth,
        "lines": _lines(volume),
        "notes": ", ".join(f"{name}: {value}" for name, value in first.facts.groups.items()),
        "numbers": {name: f"{value:.6g}" for name, value in _numbers(volume).items()},
        "is_open": is_open,
        "pictures": [
            {
                "picture": case_picture(case, with_bare=case is first or not is_shared),
                "alt": f"Planes of {case.subject}" + (f", Grad-CAM of {name}" if name and case.maps else ""),
                "caption": f"{name}: {case.decided}",
            }
            for name, case in drawn.items()
        ],
    }


def _find_filters(cases: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return the filters that would leave something out, each with its values."""
    names = dict.fromkeys(name for case in cases for name in case["facts"])
    values = {
        name: sorted({case["facts"][name] for case in cases if name in case["facts"]}) for name in names
    }
    return {name: found for name, found in values.items() if len(found) > 1}
