"""What holds for a plugin of every kind: what its package says of it."""

from __future__ import annotations

import warnings
from importlib import metadata

from mdm import registry

from mdm_testing.kit import NotApplicable, Subject, check


@check("every")
def its_package_says_which_core_it_fits(of: Subject) -> None:
    """The package requires mdm-core with an upper bound, so that another major version refuses it by name."""
    from packaging.requirements import Requirement

    if not of.package:
        raise NotApplicable("not installed: no package announces it")
    wanted = [Requirement(text) for text in metadata.requires(of.package) or ()]
    if of.package == "mdm-core":
        return
    core = next((r for r in wanted if r.name.lower().replace("_", "-") == "mdm-core"), None)
    assert core is not None, f"{of.package} does not require mdm-core: add mdm-core>=1,<2 to its dependencies"
    assert not core.specifier.contains("9999"), (
        f"{of.package} requires mdm-core{core.specifier}, which has no upper bound: end it with <2"
    )


@check("every")
def it_says_what_it_does(of: Subject) -> None:
    """The plugin has a docstring, which `mdm plugins NAME` shows."""
    kind = of.plugin if isinstance(of.plugin, type) else type(of.plugin)
    own = of.plugin.__doc__ or kind.__doc__
    assert own and own.strip(), f"{kind.__name__} has no docstring"


@check("every")
def it_uses_nothing_deprecated(of: Subject) -> None:
    """Nothing of the plugin is deprecated: it will load under the next minor versions without a warning."""
    if not of.package:
        raise NotApplicable("not installed: nothing to load")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        registry.load(registry.find(of.kind, of.name))
    ours = [str(warning.message) for warning in said if issubclass(warning.category, DeprecationWarning)]
    assert not ours, "; ".join(ours)
