"""What a W&B server says that it has. W&B's client ends as if all were well where lines are refused for good."""

import base64
import json
from typing import Any
from urllib.request import Request, urlopen

from bnft.tracking.compat import settings
from bnft.tracking.target import Target

ANSWER_SECONDS = 30.0
QUERY = """query RunLines($entity: String, $project: String, $name: String!) {
  model(name: $project, entityName: $entity) { bucket(name: $name, missingOk: true) { historyLineCount } }
}"""


def lines(target: Target, path: str) -> int | None:
    """How many lines of history the server has of the run `entity/project/id`; None if that cannot be found out."""
    key = settings().api_key
    if not key:  # as with an identity token, which only W&B's own client can use
        return None
    entity, project, name = path.split("/")
    asked = {"query": QUERY, "variables": {"entity": entity, "project": project, "name": name}}
    headers = {
        "Authorization": f"Basic {base64.b64encode(f'api:{key}'.encode()).decode()}",
        "Content-Type": "application/json",
        "User-Agent": "bnft",
    }
    try:
        with urlopen(
            Request(f"{target.url}/graphql", json.dumps(asked).encode(), headers), timeout=ANSWER_SECONDS
        ) as said:
            answer: Any = json.load(said)
        return int(answer["data"]["model"]["bucket"]["historyLineCount"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
