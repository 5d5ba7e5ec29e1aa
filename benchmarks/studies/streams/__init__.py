"""The product while it runs: first result, overhead, memory over time, bulk scoring."""
