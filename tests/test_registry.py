"""What is installed, from packages' metadata alone."""

from __future__ import annotations

import os
import sys
from importlib.metadata import distributions

import pytest
from mdm import registry
from mdm.errors import MdmError

SAMPLER = """
    from mdm.protocols import BaseSampler
    class Good(BaseSampler):
        def decide(self, *args): ...
    class Unfinished(BaseSampler): ...
    class Bad: ...
    class Old:
        Options, works_on, reads, budgets, pace, keeps_logits = None, "block", "masked", "masks", "schedule", False
        def decide(self, *args): ...
"""


def test_listing_imports_nothing(site):
    site.package("fake-a", {"mdm.samplers": {"fake": "fake_a:Good"}}, "raise RuntimeError('imported')")
    (entry,) = [entry for entry in registry.entries("sampler") if entry.name == "fake"]
    assert (entry.dist, entry.version, entry.value) == ("fake-a", "1.0", "fake_a:Good")
    assert "fake" in registry.names("sampler")
    assert "fake_a" not in sys.modules


def test_metadata_is_read_again_only_when_something_was_installed(site, monkeypatch):
    reads = []
    monkeypatch.setattr(registry, "distributions", lambda: reads.append(1) or distributions())
    site.package("fake-first", {"mdm.samplers": {"first": "fake_first:Good"}}, SAMPLER)
    assert "first" in registry.names("sampler") and len(reads) == 1
    assert registry.find("sampler", "first").dist == "fake-first" and registry.names("cache") and len(reads) == 1
    site.package("fake-second", {"mdm.samplers": {"second": "fake_second:Good"}}, SAMPLER)
    assert "second" in registry.names("sampler") and len(reads) == 2


def test_what_is_installed_within_one_tick_of_the_clock_is_found(site):
    """A file system's clock is coarse: the folder changes and its time does not."""
    for name in ("early", "late"):
        site.package(f"fake-{name}", {"mdm.samplers": {name: f"fake_{name}:Good"}}, SAMPLER)
        os.utime(site.path, ns=(0, 10**18))
        assert name in registry.names("sampler")


def test_resolve(site):
    site.package("fake-resolve", {"mdm.samplers": {"fake": "fake_resolve:Good"}}, SAMPLER)
    assert registry.resolve("sampler", "fake").__name__ == "Good"


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_module_", "ModuleNotFoundError: No module named 'no_such_module_'"),
        ("raise ValueError('first\\nsecond')", "ValueError: first"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def f(:", "SyntaxError"),
        ("x = 1", "AttributeError"),
        (None, "is gone: install it again"),
    ],
)
def test_broken_plugin_is_named_with_its_cause(site, source, cause, request):
    name = f"broken-{request.node.callspec.indices['source']}"
    module = site.package(name, {"mdm.samplers": {"broken": f"{name.replace('-', '_')}:X"}}, source, version="2.1")
    with pytest.raises(MdmError, match=f"sampler 'broken' of package {name} 2.1 does not load: ") as caught:
        registry.resolve("sampler", "broken")
    assert cause in str(caught.value) and "\n" not in str(caught.value)
    sys.modules.pop(module, None)


@pytest.mark.parametrize(
    ("name", "missing"),
    [
        ("Bad", "Options, works_on, sees, reads and more"),
        ("Unfinished", "decide"),
        ("Old", "sees, ranks_by_certainty, expected_failures, check and more"),
    ],
)
def test_a_sampler_lacks_what_the_engine_calls(site, request, name, missing):
    package = f"fake-lacks-{name.lower()}"
    module = site.package(package, {"mdm.samplers": {"lacking": f"{package.replace('-', '_')}:{name}"}}, SAMPLER)
    told = f"sampler 'lacking' of package {package} 1.0 is not a sampler, it has no {missing}: derive it from"
    with pytest.raises(MdmError, match=f"{told} mdm.protocols.BaseSampler"):
        registry.resolve("sampler", "lacking")
    with pytest.raises(MdmError, match=rf"the sampler {name} is not a sampler, it has no .*: derive it from mdm\.pro"):
        registry.require(
            "sampler", object() if name == "Bad" else getattr(sys.modules[module], name), f"the sampler {name}"
        )


@pytest.mark.parametrize(
    ("kind", "base"),
    [("cache", "mdm.protocols.BaseCache"), ("task", "mdm.protocols.BaseTask"), ("model", "mdm.models.BaseFamily")],
)
def test_every_kind_has_a_base_class(kind, base):
    with pytest.raises(MdmError, match=f"^it is not a {kind}, it has no .*: derive it from {base}$"):
        registry.require(kind, object(), "it")
    registry.require("hook", object(), "a hook, which needs none,")


def test_all_that_is_installed_derives_from_the_bases():
    import mdm.models
    import mdm.protocols

    bases = {
        "sampler": mdm.protocols.BaseSampler, "cache": mdm.protocols.BaseCache, "task": mdm.protocols.BaseTask,
        "model": mdm.models.BaseFamily,
    }  # fmt: skip
    for kind, base in bases.items():
        for entry in registry.entries(kind):
            plugin = registry.load(entry)
            assert isinstance(plugin, base) if kind == "model" else issubclass(plugin, base), entry


def test_one_name_in_two_packages(site):
    for name in ("twin-a", "twin-b"):
        module = name.replace("-", "_")
        site.package(name, {"mdm.samplers": {"twin": f"{module}:Good", f"own-{name}": f"{module}:Good"}}, SAMPLER)
    with pytest.raises(MdmError, match="'twin' is brought by several packages, twin-a 1.0 and twin-b 1.0"):
        registry.resolve("sampler", "twin")
    registry.resolve("sampler", "own-twin-a")  # harms nobody else
    faults = {(entry.dist, entry.name): fault for entry, fault in registry.check()}
    assert "several packages" in faults["twin-a", "twin"] and faults["twin-a", "own-twin-a"] is None


def test_one_package_found_twice_is_one(site, tmp_path, monkeypatch):
    site.package("fake-twice", {"mdm.samplers": {"twice": "fake_twice:Good"}}, SAMPLER)
    other = tmp_path / "other"
    other.mkdir()
    type(site)(other).package("fake_twice", {"mdm.samplers": {"twice": "fake_twice:Good"}}, SAMPLER, version="0.9")
    monkeypatch.syspath_prepend(str(other))
    monkeypatch.syspath_prepend(str(site.path))
    assert [entry.version for entry in registry.entries("sampler") if entry.name == "twice"] == ["1.0"]
    registry.resolve("sampler", "twice")


def test_unreadable_metadata_harms_nobody(site):
    site.package("fake-torn", {})
    (site.path / "fake_torn-1.0.dist-info" / "entry_points.txt").write_text("[mdm.samplers]\nno equals sign\n")
    (site.path / "nameless-1.dist-info").mkdir()
    site.package("fake-fine", {"mdm.samplers": {"fine": "fake_fine:Good"}}, SAMPLER)
    assert "fine" in registry.names("sampler")
    assert "no equals sign" not in registry.names("sampler")


def test_unknown_name(site):
    site.package("fake-hint", {"mdm.samplers": {"sharpest": "fake_hint:Good"}}, SAMPLER)
    with pytest.raises(MdmError, match=r"unknown sampler 'sharpset'. Did you mean 'sharpest'\? Installed: .*sharpest"):
        registry.resolve("sampler", "sharpset")


def test_absent_package_is_named(site, monkeypatch):
    monkeypatch.setitem(registry.known_plugins()["task"], "crosswords", "mdm-crosswords")
    with pytest.raises(MdmError, match="task 'crosswords' comes with the package mdm-crosswords, which is not inst"):
        registry.resolve("task", "crosswords")
    with pytest.raises(MdmError, match=r"unknown task 'croswords'. Did you mean 'crosswords'\?"):
        registry.resolve("task", "croswords")


def test_check_says_what_broke(site):
    site.package("fake-check", {"mdm.samplers": {"sound": "fake_check:Good"}}, SAMPLER)
    site.package("fake-check-b", {"mdm.tasks": {"broken": "fake_check_b:T"}}, "import no_such_module_")
    faults = {entry.name: fault for entry, fault in registry.check()}
    assert faults["sound"] is None
    assert "fake-check-b 1.0" in faults["broken"] and "no_such_module_" in faults["broken"]


def test_a_plugin_for_another_major_is_listed_and_not_loaded(site):
    source = "raise RuntimeError('imported')"
    site.package("fake-next", {"mdm.samplers": {"next": "fake_next:X"}}, source, requires=["torch", "mdm-core<3,>=2"])
    site.package(
        "fake-fits", {"mdm.samplers": {"fits": "fake_fits:Good"}}, SAMPLER, requires=["mdm_core>=1.0.0.dev0,<2"]
    )
    unmet = {entry.name: entry.unmet for entry in registry.entries("sampler")}
    assert (unmet["next"], unmet["fits"]) == ("<3,>=2", "")
    assert "fits" in registry.names("sampler") and "next" not in registry.names("sampler")
    registry.resolve("sampler", "fits")
    with pytest.raises(
        MdmError, match="sampler 'next' of package fake-next 1.0 is for mdm-core<3,>=2, and this is mdm-"
    ):
        registry.resolve("sampler", "next")
    faults = {entry.name: fault for entry, fault in registry.check()}
    assert "install a release of fake-next for it" in faults["next"] and faults["fits"] is None
    assert "fake_next" not in sys.modules


def test_one_that_fits_is_not_shadowed_by_one_that_does_not(site):
    site.package("fake-old", {"mdm.samplers": {"same": "fake_old:Good"}}, SAMPLER, requires=["mdm-core<1"])
    site.package("fake-new", {"mdm.samplers": {"same": "fake_new:Good"}}, SAMPLER)
    assert registry.resolve("sampler", "same").__module__ == "fake_new"


def test_a_deprecated_attribute_warns_with_its_replacement(site, monkeypatch):
    site.package("fake-dated", {"mdm.samplers": {"dated": "fake_dated:Good"}}, SAMPLER)
    monkeypatch.setitem(registry.DEPRECATED, "sampler", {"works_on": "say `span` instead"})
    with pytest.warns(DeprecationWarning, match="'dated' of package fake-dated 1.0 has works_on.*: say `span` instead"):
        registry.resolve("sampler", "dated")


def test_the_command_line_lists_it_as_incompatible(site):
    from click.testing import CliRunner
    from mdm.cli.plugins import plugins

    site.package("fake-later", {"mdm.samplers": {"later": "fake_later:X"}}, requires=["mdm-core>=2,<3"])
    listed = CliRunner().invoke(plugins, [], standalone_mode=False)
    assert listed.return_value == 0
    (line,) = [line for line in listed.stdout.splitlines() if line.split()[:2] == ["sampler", "later"]]
    assert line.split()[-1] == "incompatible"
    assert "incompatible: sampler 'later' of package fake-later 1.0 is for mdm-core<3,>=2" in listed.stdout
    assert CliRunner().invoke(plugins, ["--check", "later"], standalone_mode=False).return_value == 1
    with pytest.raises(MdmError, match="is for mdm-core<3,>=2"):
        CliRunner().invoke(plugins, ["later"], standalone_mode=False, catch_exceptions=False)


def test_an_object_given_to_decode_is_refused_in_the_same_words(site):
    import mdm
    from mdm_testing import toy_model

    module = site.package("fake-old-object", {}, SAMPLER)
    old = __import__(module).Old()
    with pytest.raises(
        MdmError, match="the sampler Old is not a sampler, .*: derive it from mdm.protocols.BaseSampler$"
    ):
        mdm.decode(toy_model(), [[1, 2]], old, gen_length=2)
    with pytest.raises(MdmError, match="the cache Old is not a cache, .*: derive it from mdm.protocols.BaseCache$"):
        mdm.decode(toy_model(), [[1, 2]], cache=old, gen_length=2)


def test_a_task_grades_what_it_asks_for(site):
    source = """
        from mdm.protocols import BaseTask

        class Texts(BaseTask):
            def examples(self, *, seed, data=None): ...
            def prompt(self, example, style): ...
            def grade_image(self, example, image): ...

        class Pictures(BaseTask):
            answers = "image"
            def examples(self, *, seed, data=None): ...
            def prompt(self, example, style): ...
            def grade(self, example, completion): ...

        class Sound(Pictures):
            grade_image = grade = Texts.grade_image
    """
    names = {"texts": "mdm_halves:Texts", "drawn": "mdm_halves:Pictures", "sound": "mdm_halves:Sound"}
    site.package("mdm-halves", {"mdm.tasks": names}, source)
    with pytest.raises(MdmError, match="is not a task, it has no grade: derive it"):
        registry.resolve("task", "texts")
    with pytest.raises(MdmError, match="is not a task, it has no grade_image: derive it"):
        registry.resolve("task", "drawn")
    assert registry.resolve("task", "sound").answers == "image"
