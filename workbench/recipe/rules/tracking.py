"""Rules on where a run is shown."""

from __future__ import annotations

import urllib.parse

from workbench.recipe.resolved import Resolved
from workbench.recipe.rules.rule import Rule
from workbench.recipe.settings import Settings


def _password(resolved: Resolved) -> str | None:
    mlflow = resolved.recipe.tracking.mlflow
    return urllib.parse.urlsplit(mlflow.uri or "").password if mlflow else None


def _without_password(resolved: Resolved) -> Settings:
    mlflow = resolved.recipe.tracking.mlflow
    parts = urllib.parse.urlsplit((mlflow.uri if mlflow else None) or "")
    return {"tracking.mlflow.uri": parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()}


RULES = (
    Rule(
        "password-in-uri",
        ("tracking", "mlflow", "uri"),
        "illegal",
        lambda r: _password(r) is not None,
        "holds a password, and a recipe is written into every run's directory, pack and card",
        "give it by MLFLOW_TRACKING_URI, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
        "MLflow 3.17 documentation, MLflow Authentication (environment variables)",
        cure=_without_password,
    ),
)
