"""Write the files of the chart that repeat other parts of the repository.

The schema of `settings` is that of the settings' models; alerts and dashboard are copies, since
Helm reads nothing beyond the chart and complains of links.
"""

import json
import sys
from pathlib import Path
from typing import Any

from samovard.settings import NAME, TENANT, Settings

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy" / "kubernetes"
SCHEMA = CHART / "values.schema.json"
COPIES = {
    CHART / "files" / "rules.yaml": ROOT / "deploy" / "prometheus" / "rules.yaml",
    CHART / "files" / "samovar.json": ROOT / "deploy" / "grafana" / "samovar.json",
}
#: Of no use here, or not JSON Schema: pydantic's bounds of a quantity as a whole.
DROPPED = {"title", "default", "format", "ge", "gt"}


def settings() -> dict[str, Any]:
    """Return the schema of the settings, without references."""
    made = Settings.model_json_schema()
    schema: dict[str, Any] = _plain(made, made["$defs"])
    for section, name in (("profiles", NAME), ("tenants", TENANT)):
        tables = schema["properties"][section]
        (tables["additionalProperties"],) = tables.pop("patternProperties").values()
        tables["propertyNames"] = {"pattern": f"^{name}$"}
    return schema


def _plain(node: Any, models: dict[str, Any]) -> Any:
    """Return a part of a schema with each reference replaced by what it names."""
    if isinstance(node, list):
        return [_plain(item, models) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        model = models[node["$ref"].rpartition("/")[2]]
        node = model | {key: value for key, value in node.items() if key != "$ref"}
    plain = {}
    for key, value in node.items():
        if key == "properties":
            plain[key] = {name: _plain(inner, models) for name, inner in value.items()}
        elif key not in DROPPED and key != "$defs":
            plain[key] = _plain(value, models)
    return plain


def files() -> dict[Path, str]:
    """Return each generated file, with its content."""
    schema = json.loads(SCHEMA.read_text("utf-8"))
    schema["properties"]["settings"] = settings()
    made = {SCHEMA: json.dumps(schema, indent=2) + "\n"}
    return made | {path: source.read_text("utf-8") for path, source in COPIES.items()}


def stale() -> list[Path]:
    """Return the files that are stale; a link counts as stale."""
    return [
        path
        for path, text in files().items()
        if path.is_symlink() or not path.exists() or path.read_text("utf-8") != text
    ]


def main() -> int:
    """Write the files that are stale."""
    made = files()
    for path in stale():
        path.unlink(missing_ok=True)
        path.write_text(made[path], "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
