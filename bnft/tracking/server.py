"""Ask a W&B server what it has. This is needed because W&B's client reports no error if a server refuses lines."""

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
    """Return the number of lines of history that the server has of a run; None if it cannot be determined.

    Args:
        target: the project on the server.
        path: `entity/project/id`.
    """
    key = settings().api_key
    if not key:  # for example with an identity token, which only W&B's own client can use
        return None
    entity, project, name = path.split("/")
    request = {"query": QUERY, "variables": {"entity": entity, "project": project, "name": name}}
    headers = {
        "Authorization": f"Basic {base64.b64encode(f'api:{key}'.encode()).decode()}",
        "Content-Type": "application/json",
        "User-Agent": "bnft",
    }
    try:
        with urlopen(
            Request(f"{target.url}/graphql", json.dumps(request).encode(), headers), timeout=ANSWER_SECONDS
        ) as response:
            answer: Any = json.load(response)
        return int(answer["data"]["model"]["bucket"]["historyLineCount"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
