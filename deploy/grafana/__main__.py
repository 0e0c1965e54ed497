"""`python -m deploy.grafana`: write the dashboards of `boards.py` as Grafana reads them, into `dashboards/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from deploy.grafana.boards import BOARDS, Board, Panel

FOLDER: Final = Path(__file__).with_name("dashboards")
ACROSS: Final = 3
WIDTH: Final = 24 // ACROSS
HEIGHT: Final = 8
SOURCE: Final = {"type": "prometheus", "uid": "prometheus"}
TENANT: Final = {
    "name": "tenant",
    "type": "query",
    "datasource": SOURCE,
    "query": {"query": "label_values(feed_pages_total, tenant)", "refId": "tenant"},
    "refresh": 2,
    "includeAll": True,
    "allValue": ".*",
    "multi": True,
    "current": {"text": "All", "value": "$__all"},
}


def dashboard(name: str, board: Board) -> dict[str, Any]:
    """A board in Grafana's model."""
    panels: list[dict[str, Any]] = []
    y = 0
    for heading, row in board.rows.items():
        panels.append({"type": "row", "title": heading, "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, "panels": []})
        for place, panel in enumerate(row):
            at = {"x": place % ACROSS * WIDTH, "y": y + 1 + place // ACROSS * HEIGHT, "w": WIDTH, "h": HEIGHT}
            panels.append({**shaped(panel), "gridPos": at})
        y += 1 + -(-len(row) // ACROSS) * HEIGHT
    return {
        "uid": f"verticalfeed-{name}",
        "title": board.title,
        "tags": ["verticalfeed"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [TENANT] if board.by_tenant else []},
        "panels": [{"id": number, **panel} for number, panel in enumerate(panels, start=1)],
    }


def shaped(panel: Panel) -> dict[str, Any]:
    """A panel in Grafana's model, without its place."""
    steps = [{"color": "green", "value": None}, *({"color": "red", "value": line} for line in panel.lines)]
    drawn = {"lineWidth": 1, "fillOpacity": 5, "thresholdsStyle": {"mode": "line" if panel.lines else "off"}}
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": panel.words,
        "datasource": SOURCE,
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": query, "legendFormat": legend}
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "custom": drawn,
                "thresholds": {"mode": "absolute", "steps": steps},
            },
            "overrides": [],
        },
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    }


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, board in BOARDS.items():
        (FOLDER / f"{name}.json").write_text(json.dumps(dashboard(name, board), indent=1) + "\n")


if __name__ == "__main__":
    main()
