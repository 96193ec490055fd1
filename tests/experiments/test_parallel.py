"""Which stages one process runs, and what may run beside them."""

from __future__ import annotations

import pytest

from meal.core.errors import UserError
from meal.experiments.parallel import next_lane, stage_graph

GRAPH: dict[str, set[str]] = {
    "configure": set(),
    "prepare": {"configure"},
    "teacher@a": {"prepare"},
    "teacher@b": {"prepare"},
    "cache@a": {"teacher@a"},
    "cache@b": {"teacher@b"},
    "ensemble": {"cache@a", "cache@b"},
    "baseline": {"prepare"},
    "distill": {"ensemble"},
    "evaluate": {"distill", "baseline"},
    "report": {"evaluate"},
    "export": {"evaluate"},
}


def test_a_lane_ends_where_several_stages_become_ready() -> None:
    assert next_lane(GRAPH, set(), set()) == ["configure", "prepare"]
    assert next_lane(GRAPH, set(), {"configure", "prepare"}) == []


def test_a_teacher_and_its_cache_share_a_lane_beside_others() -> None:
    done = {"configure", "prepare"}
    first = next_lane(GRAPH, done, set())
    assert first == ["teacher@a", "cache@a"]
    second = next_lane(GRAPH, done, {*first})
    assert second == ["teacher@b", "cache@b"]
    assert next_lane(GRAPH, done, {*first, *second}) == ["baseline"]
    assert next_lane(GRAPH, done, {*first, *second, "baseline"}) == []


def test_the_end_waits_for_what_runs_beside_it() -> None:
    done = {"configure", "prepare", "teacher@a", "cache@a", "teacher@b", "cache@b"}
    assert next_lane(GRAPH, done, {"baseline"}) == ["ensemble", "distill"]
    assert next_lane(GRAPH, {*done, "baseline"}, set()) == ["ensemble", "distill", "evaluate"]
    done |= {"baseline", "ensemble", "distill", "evaluate"}
    assert next_lane(GRAPH, done, set()) == ["report"]
    assert next_lane(GRAPH, done, {"report"}) == ["export"]
    assert next_lane(GRAPH, {*done, "report", "export"}, set()) == []


def test_a_target_needs_only_what_is_above_it() -> None:
    """On the project's own dvc.yaml."""
    graph = stage_graph(["cache"])
    names = ("vgg", "resnet", "preact")
    each = [f"{stage}@{name}" for stage in ("teacher", "cache") for name in names]
    assert graph.keys() == {"configure", "prepare", *each}
    assert stage_graph([]).keys() > {"baseline", "evaluate", "report", "export", *graph}
    with pytest.raises(UserError, match=r"teachers: no such stage; allowed: baseline, cache, conf"):
        stage_graph(["teachers"])
