// How stream and machine are.

import { fill, rows } from "./dom.js";
import { ago } from "./verdict.js";

const byte = (value) => (value === null ? "–" : value < 1 << 30 ? `${Math.round(value / (1 << 20))} MB` : `${(value / (1 << 30)).toFixed(1)} GB`);
const ms = (value) => (value < 10 ? value.toFixed(2) : value.toFixed(1));
const count = new Intl.NumberFormat("en-GB").format;

export function showHealth(health, state) {
  const find = (id) => document.getElementById(id);
  const facts = [
    ["fps", health.fps.toFixed(1)],
    ["scored", count(health.frames)],
    ["anomalous", count(health.anomalous)],
    ["dropped", count(health.dropped)],
    ["unreadable", count(health.skipped)],
    ["running for", ago(health.uptime_s)],
    ["memory", byte(health.memory_bytes)],
    ["memory free", byte(health.available_bytes)],
    ["bundle", state.bundle],
    ["engine", state.backend],
    ["browsers watching", health.watching],
  ];
  if (health.temperatures.length) facts.splice(8, 0, ["hottest", `${health.temperatures[0].celsius.toFixed(0)} °C`]);
  fill(find("facts"), facts);
  const { p50, p95, p99 } = health.latency_ms;
  rows(find("stages"), [
    ...health.stages.map((stage) => [stage.name, ms(stage.p50), ms(stage.p95), ms(stage.p99)]),
    ["capture to verdict", ms(p50), ms(p95), ms(p99)],
  ]);
  rows(find("drops"), Object.entries(health.sink_dropped).map(([name, lost]) => [name, count(lost)]));
  rows(find("temperatures"), health.temperatures.map(({ sensor, celsius }) => [sensor, celsius.toFixed(0)]));
}

export function showSources(sources) {
  rows(document.getElementById("source-table"), sources.map((source) => [
    source.label, count(source.frames), source.fps.toFixed(1), count(source.anomalous), count(source.dropped), count(source.skipped), count(source.reconnects),
  ]));
}
