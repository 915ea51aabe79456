"""The dashboard: it asks for what the observer writes, all of it, and Grafana can draw it."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import anyio
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from anythrottle import (
    LeaseExpired,
    LimitExceeded,
    RateLimiter,
    StoreBack,
    StoreLost,
    ThrottleException,
)
from anythrottle.integrations.prometheus import PrometheusObserver
from anythrottle.testing import virtual_backends

FILE = Path(__file__).parents[2] / "docs" / "examples" / "grafana_dashboard.json"

#: What PromQL has itself, and what its grammar takes for a name besides.
FUNCTIONS = {"histogram_quantile", "increase", "max", "rate", "sum"}
GRAMMAR = {"by", "label_values"}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def exported() -> dict[str, set[str]]:
    """Return the labels of all that the registry writes, by name, after a bit of everything."""
    registry = CollectorRegistry()
    observer = PrometheusObserver(registry)
    limiter = RateLimiter("2/10s", "9 tokens/s", concurrency=1, name="a", observer=observer)
    observer.watch(limiter)
    answers = iter([ThrottleException(retry_after=1)])

    async def call() -> None:
        for error in answers:
            raise error

    async def main() -> None:
        await limiter.run(call, cost={"tokens": 1})
        with pytest.raises(LimitExceeded):
            await limiter.run(call, cost={"tokens": 1}, max_wait=1)

        with anyio.move_on_after(1):
            await limiter.run(call, cost={"tokens": 1})

    name, options = virtual_backends()[0]
    anyio.run(main, backend=name, backend_options=options)
    for event in (StoreLost("a", OSError()), StoreBack("a", 1.0), LeaseExpired("a", 1)):
        observer(event)

    return {
        sample.name: set(sample.labels)
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def drawn(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(dashboard: dict[str, Any]) -> list[str]:
    found = [target["expr"] for panel in drawn(dashboard) for target in panel["targets"]]
    variables = [each["query"] for each in dashboard["templating"]["list"]]
    return found + [each["query"] for each in variables if isinstance(each, dict)]


def metrics_of(query: str) -> set[str]:
    """Return the names in a query that are those of metrics."""
    without_labels = re.sub(r"\{.*?\}|\[.*?\]|by \(.*?\)|, \w+\)$", "", query)
    return set(re.findall(r"[a-z_]\w+", without_labels)) - FUNCTIONS - GRAMMAR


def labels_of(query: str) -> set[str]:
    """Return the labels that a query tells apart, or chooses by."""
    by = re.findall(r"by \((.*?)\)", query)
    chosen = re.findall(r"(\w+)\s*[=!]~?\"", query)
    asked = re.findall(r"^label_values\(\w+, (\w+)\)$", query)
    return {name.strip() for group in by for name in group.split(",")} | {*chosen, *asked}


def test_each_metric_and_label_is_written(
    dashboard: dict[str, Any], exported: dict[str, set[str]]
) -> None:
    found = queries(dashboard)
    assert len(found) > 15
    for query in found:
        assert metrics_of(query), query
        for metric in metrics_of(query):
            assert metric in exported, query
            assert labels_of(query) <= exported[metric], query


def test_each_metric_is_drawn_with_each_of_its_labels(
    dashboard: dict[str, Any], exported: dict[str, set[str]]
) -> None:
    drawn: dict[str, set[str]] = {}
    for query in queries(dashboard):
        for metric in metrics_of(query):
            drawn.setdefault(family_of(metric), set()).update(labels_of(query) - {"le"})

    # Of a histogram, either the buckets are drawn or the mean.
    assert drawn == {family_of(name): labels - {"le"} for name, labels in exported.items()}


def family_of(metric: str) -> str:
    return re.sub(r"_(bucket|sum|count)$", "", metric)


def test_legends_name_what_their_queries_tell_apart(dashboard: dict[str, Any]) -> None:
    for panel in drawn(dashboard):
        legends = [target["legendFormat"] for target in panel["targets"]]
        assert len(set(legends)) == len(legends)
        for target in panel["targets"]:
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            assert named == labels_of(target["expr"]) - {"le"}


def test_queries_are_well_formed(dashboard: dict[str, Any], exported: dict[str, set[str]]) -> None:
    for query in queries(dashboard):
        for pair in ("()", "{}", "[]"):
            assert query.count(pair[0]) == query.count(pair[1])

        # Only counters have rates, and all of them are drawn as such.
        counters = {
            each for each in metrics_of(query) if re.search(r"_(total|sum|count|bucket)$", each)
        }
        if counters and not query.startswith("label_values"):
            assert query.count("[$__rate_interval]") == query.count("rate(anythrottle") + (
                query.count("increase(anythrottle")
            )
            assert "rate(" in query or "increase(" in query
        else:
            assert "rate" not in query


def test_each_query_is_of_the_limiters_that_are_chosen(dashboard: dict[str, Any]) -> None:
    for panel in drawn(dashboard):
        for target in panel["targets"]:
            chosen = target["expr"].count('{limiter=~"$limiter"}')
            assert chosen == target["expr"].count("anythrottle_") > 0


def test_the_variables(dashboard: dict[str, Any]) -> None:
    source, limiter = dashboard["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == (
        "datasource",
        "datasource",
        "prometheus",
    )
    assert limiter["name"] == "limiter"
    # Limiters without a name are among all.
    assert re.fullmatch(limiter["allValue"], "")
    sources = [limiter, *drawn(dashboard)]
    sources += [target for panel in drawn(dashboard) for target in panel["targets"]]
    assert all(
        each["datasource"] == {"type": "prometheus", "uid": "${datasource}"} for each in sources
    )


def test_panels_stand_beside_each_other(dashboard: dict[str, Any]) -> None:
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        assert (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )


def test_panels_tell_what_they_show(dashboard: dict[str, Any]) -> None:
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert len(set(titles)) == len(titles)
    assert all(len(panel["description"]) > 20 for panel in drawn(dashboard))
    for panel in drawn(dashboard):
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
