"""The tests' tree is the source's tree: who knows a module knows where its tests are.

`runtime/a/b.py` is tested by `tests/runtime/a/test_b.py`, or by `test_b_*.py` beside it. What is tested otherwise
stands in `COVERED`, below the tests that cover it: those of the module that it is a part of, or of the command that it
is.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = ROOT / "tests"
PARTS = ("runtime", "export", "train")

COVERED = {
    # A command is tested as its user runs it.
    "runtime/cli/test_commands.py": ["export/commands", "train/commands"],
    "e2e/test_cli_bundle.py": ["runtime/cli/bundle/"],
    "e2e/test_cli_calibrate.py": [
        "runtime/cli/fitting/fit_options",
        "runtime/cli/fitting/frames",
    ],
    "e2e/test_cli_data.py": ["runtime/cli/terminal/bar", "train/data/cli", "train/data/files"],
    "e2e/test_cli_doctor.py": ["runtime/cli/doctor"],
    "e2e/test_cli_eval.py": [
        "train/evaluation/ablation/",
        "train/evaluation/cli/",
        "train/evaluation/few_shot/command",
        "train/evaluation/few_shot/options",
        "train/evaluation/suite/cli",
    ],
    "e2e/test_cli_export.py": ["export/cli/"],
    "e2e/test_cli_knowledge.py": ["train/knowledge/builder", "train/knowledge/cli", "train/knowledge/client"],
    "e2e/test_cli_learn.py": [
        "runtime/cli/fitting/learn",
        "runtime/cli/fitting/learn_options",
        "runtime/cli/fitting/learn_steps",
        "runtime/cli/terminal/steps",
        "runtime/ops/learn/report",
    ],
    "e2e/test_cli_run.py": [
        "runtime/cli/main",
        "runtime/cli/options",
        "runtime/cli/run_options/",
        "runtime/cli/terminal/run_report",
    ],
    "e2e/test_cli_score.py": ["runtime/cli/report", "runtime/cli/score", "runtime/cli/terminal/score_progress"],
    "e2e/test_cli_train.py": [
        "train/training/cli/checks",
        "train/training/cli/command",
        "train/training/cli/options",
        "train/training/cli/preparing",
        "train/training/job",
        "train/training/progress",
    ],
    "cases/stdout-closed/test_stdout_closed.py": ["runtime/cli/terminal/stdout"],
    # One subject in several modules, tested through the one that its users call.
    "runtime/bundle/test_manifest.py": ["runtime/bundle/json_fields", "runtime/bundle/manifest/"],
    "runtime/detect/test_detector.py": ["runtime/detect/rules", "runtime/detect/verdict"],
    "runtime/detect/learning/teaching/test_teacher.py": [
        "runtime/detect/learning/teaching/copies",
        "runtime/detect/learning/teaching/taught",
    ],
    "runtime/detect/learning/test_warm_up.py": ["runtime/detect/learning/warmed_up"],
    "runtime/detect/settings/test_settings.py": [
        "runtime/detect/settings/settings_file",
        "runtime/detect/settings/toml_file",
    ],
    "runtime/engines/tensorrt/building/test_build.py": ["runtime/engines/tensorrt/building/attention"],
    "runtime/engines/tensorrt/building/test_cache.py": ["runtime/engines/tensorrt/building/key"],
    "runtime/engines/tensorrt/test_backend.py": [
        "runtime/engines/tensorrt/buffers",
        "runtime/engines/tensorrt/cuda_python",
        "runtime/engines/tensorrt/device",
        "runtime/engines/tensorrt/execution",
        "runtime/engines/tensorrt/flavour",
        "runtime/engines/tensorrt/open_device",
    ],
    "runtime/engines/test_autoselect.py": [
        "runtime/engines/inputs",
        "runtime/engines/reference",
    ],
    "runtime/engines/onnxruntime/test_backend.py": ["runtime/engines/onnxruntime/binding"],
    "runtime/engines/test_probe.py": ["runtime/engines/probed"],
    "runtime/ops/calibration/test_calibrate.py": ["runtime/ops/calibration/report"],
    "runtime/ops/fleet/stores/test_store.py": [
        "runtime/ops/fleet/stores/blobs",
        "runtime/ops/fleet/stores/layout",
        "runtime/ops/fleet/stores/registry",
        "runtime/ops/fleet/stores/web",
    ],
    "runtime/ops/fleet/test_address.py": ["runtime/ops/fleet/reference"],
    "runtime/ops/fleet/test_installation.py": ["runtime/ops/fleet/examine", "runtime/ops/fleet/versions"],
    "runtime/ops/fleet/test_keys.py": ["runtime/ops/fleet/statement"],
    "runtime/ops/fleet/test_pull.py": ["runtime/ops/fleet/push"],
    "runtime/ops/report/test_page.py": [
        "runtime/ops/report/cases",
        "runtime/ops/report/changes",
        "runtime/ops/report/comparison",
        "runtime/ops/report/plots",
        "runtime/ops/report/results",
    ],
    "runtime/ops/score/test_bulk.py": ["runtime/ops/score/merge", "runtime/ops/score/run_folder"],
    "runtime/ops/score/test_listing.py": ["runtime/ops/score/places", "runtime/sources/files/folders"],
    "runtime/service/page/auth/test_access.py": ["runtime/service/page/auth/login"],
    "runtime/service/page/feed/test_live.py": ["runtime/service/page/feed/facts"],
    "runtime/service/page/teaching/test_routes.py": ["runtime/service/page/teaching/view"],
    "runtime/service/page/test_app.py": ["runtime/service/page/auth/guard", "runtime/service/page/requests"],
    "runtime/service/page/test_server.py": ["runtime/service/page/feed/connections"],
    "runtime/service/page/test_snapshot_gallery.py": ["runtime/service/page/gallery"],
    "runtime/sinks/draw/test_draw.py": ["runtime/sinks/draw/encode"],
    "runtime/sinks/events/test_outbox.py": ["runtime/sinks/events/events"],
    "runtime/sinks/events/test_webhook.py": ["runtime/sinks/events/webhook_config"],
    "runtime/sinks/snapshots/test_sink.py": ["runtime/sinks/snapshots/reader", "runtime/sinks/snapshots/ring"],
    "runtime/sinks/test_faults.py": ["runtime/sinks/base", "runtime/sinks/outage"],
    "runtime/sinks/test_sinks.py": ["runtime/sinks/files", "runtime/sinks/images", "runtime/sinks/window"],
    "runtime/sinks/video/test_video.py": ["runtime/sinks/video/encoders"],
    "runtime/sources/gstreamer/test_gstreamer.py": [
        "runtime/sources/gstreamer/launch",
    ],
    "runtime/sources/files/headers/test_header.py": [
        "runtime/sources/files/headers/orientation",
        "runtime/sources/files/headers/parts",
        "runtime/sources/files/samples",
    ],
    "runtime/sources/network/test_url.py": ["runtime/sources/network/connection", "runtime/sources/network/probe"],
    "runtime/sources/test_sources.py": [
        "runtime/cli/terminal/quiet",
        "runtime/sources/base",
        "runtime/sources/capture",
        "runtime/sources/files/images",
        "runtime/sources/files/listing",
        "runtime/sources/files/video",
        "runtime/sources/opening",
    ],
    "runtime/stream/test_pipeline.py": ["runtime/stream/"],
    "export/test_parity.py": ["runtime/bundle/tolerances"],
    "export/quantisation/test_quantize.py": [
        "export/quantisation/calibration",
        "export/quantisation/quantize_fp8",
        "export/quantisation/sensitivity",
    ],
    "train/data/layouts/test_find.py": ["train/data/layouts/layout"],
    "train/data/layouts/test_tree.py": ["train/data/layouts/listing"],
    "train/data/test_registry.py": ["train/data/layouts/names"],
    "train/evaluation/test_evaluate.py": ["train/evaluation/results"],
    "train/evaluation/suite/test_command.py": ["train/evaluation/suite/methods", "train/evaluation/suite/tables"],
    "train/evaluation/few_shot/test_draws.py": ["train/evaluation/few_shot/references"],
    "train/evaluation/test_tables.py": ["train/evaluation/paper"],
    "train/model/towers/test_adapters.py": [
        "train/model/towers/blocks",
        "train/model/towers/parts",
        "train/model/towers/timm_towers",
    ],
    "train/nano/scenes/test_scene.py": [
        "train/nano/scenes/borders",
        "train/nano/scenes/camera",
        "train/nano/scenes/cracks",
        "train/nano/scenes/defects",
        "train/nano/scenes/marks",
        "train/nano/scenes/materials",
        "train/nano/scenes/noise",
        "train/nano/scenes/objects",
        "train/nano/scenes/sheet",
    ],
    "train/training/cli/test_report.py": ["train/training/config"],
    "train/weights/test_full_size.py": ["train/weights/published"],
    "train/weights/formats/test_layouts.py": [
        "train/weights/fitting",
        "train/weights/formats/archive",
        "train/weights/formats/files",
    ],
    "train/training/test_trainer.py": ["train/training/state"],
}
"""Test file -> modules that have none of their own; a name with a slash at its end is a whole folder."""
PURE = {"runtime/errors", "train/data/types"}
"""Names and fields that do nothing by themselves."""
WIDE = {"runtime/stream/test_clock_steps.py", "runtime/test_doctests.py", "runtime/test_names_without_end.py"}
"""Tests of something that many modules promise together."""


def modules():
    """Every module but the packages' own files, as `runtime/system/net`."""
    paths = [path for part in PARTS for path in (ROOT / part).rglob("*.py") if path.name != "__init__.py"]
    assert len(paths) > 200
    return sorted(str(path.relative_to(ROOT).with_suffix("")) for path in paths)


def own_tests(module):
    """The test files in a module's mirrored place."""
    place = TESTS / module
    return [*place.parent.glob(f"test_{place.name}.py"), *place.parent.glob(f"test_{place.name}_*.py")]


def covered(module):
    """Whether the table has it, by itself or with its folder."""
    named = {name for names in COVERED.values() for name in names}
    return module in named or any(name.endswith("/") and module.startswith(name) for name in named)


def test_every_module_has_its_tests():
    assert [
        module for module in modules() if not own_tests(module) and not covered(module) and module not in PURE
    ] == []


def test_the_table_says_nothing_that_is_not_so():
    known = set(modules())
    assert [name for name in COVERED if not (TESTS / name).is_file()] == []
    named = [name for names in COVERED.values() for name in names]
    assert len(named) == len(set(named))
    assert [name for name in named if name not in known and not (name.endswith("/") and (ROOT / name).is_dir())] == []
    assert [name for name in named if name in known and own_tests(name)] == [], "these have tests of their own by now"


def test_every_test_file_is_of_a_module():
    """Or of a package, or of what the table gives it."""
    homeless = []
    for path in sorted(path for part in PARTS for path in (TESTS / part).rglob("test_*.py")):
        name = str(path.relative_to(TESTS))
        words = path.stem.removeprefix("test_").split("_")
        places = [ROOT / path.parent.relative_to(TESTS) / "_".join(words[: n + 1]) for n in range(len(words))]
        found = any(place.with_suffix(".py").is_file() or place.is_dir() for place in places)
        if not found and name not in COVERED and name not in WIDE:
            homeless.append(name)
    assert homeless == []
