"""Plain frozen records of a trace: what capture makes, the store keeps and every view starts from."""

from tracer.records.events import (
    EVENT_KINDS,
    Accumulate,
    Cut,
    DataWrite,
    Dropped,
    Event,
    Forward,
    GradMode,
    GradRead,
    GradWrite,
    Hook,
    HookAdded,
    HookRemoved,
    HookRun,
    Leaf,
    Mark,
    NodeRun,
    OptimizerStep,
    Outcome,
    Pass,
    PassBegin,
    PassEnd,
    Recompute,
    TensorRef,
)
from tracer.records.graph import Edge, Graph, ModuleRef, Node, NodeKind, Root, SavedTensor, Site
from tracer.records.tensors import Gradient, Scalar, TensorMeta
from tracer.records.trace import EventList, EventLog, Run, TraceRecord

__all__ = [
    "EVENT_KINDS", "Accumulate", "Cut", "DataWrite", "Dropped", "Edge", "Event", "EventList", "EventLog",
    "Forward", "GradMode", "GradRead", "GradWrite", "Gradient", "Graph", "Hook", "HookAdded",
    "HookRemoved", "HookRun", "Leaf", "Mark", "ModuleRef", "Node", "NodeKind", "NodeRun",
    "OptimizerStep", "Outcome", "Pass", "PassBegin", "PassEnd", "Recompute", "Root", "Run",
    "SavedTensor", "Scalar", "Site", "TensorMeta", "TensorRef", "TraceRecord",
]
