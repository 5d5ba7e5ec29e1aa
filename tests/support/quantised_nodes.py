"""Which layers of a graph are quantised, by their names."""

from __future__ import annotations


def quantised_layers(graph):
    producers = {name: node for node in graph.node for name in node.output}
    return {
        node.name
        for node in graph.node
        if node.op_type in ("MatMul", "Gemm")
        and all(producers.get(name, node).op_type == "DequantizeLinear" for name in node.input[:2])
    }


def quantised_convolutions(graph):
    producers = {name: node for node in graph.node for name in node.output}
    return {
        node.name
        for node in graph.node
        if node.op_type == "Conv"
        and all(producers[name].op_type == "DequantizeLinear" for name in node.input[:2] if name in producers)
        and node.input[1] in producers
    }
