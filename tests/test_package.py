"""What holds for the package as a whole: imports, floors, safety, documentation."""

import ast
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import ebbtide
from source_tools import PACKAGE, ROOT, SOURCES, imports, name_of, tree_of
from tiny import write_run

TEXTS = [p for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *PACKAGE.rglob("*.md"), *SOURCES]]
TESTS = sorted((ROOT / "tests").glob("*.py"))


MODULES = [name_of(path) for path in SOURCES]


def offenders(found: Callable[[Path], Collection[str]], paths: Iterable[Path] = SOURCES) -> dict[str, Collection[str]]:
    """What a rule finds, by file; files in which it finds nothing are left out. Paths are the repository's."""
    told = {str(path.relative_to(ROOT)): found(path) for path in paths}
    return {name: one for name, one in told.items() if one}


def test_every_module_can_be_imported_and_says_what_it_is():
    assert [name for name in MODULES if not importlib.import_module(name).__doc__] == []


def test_every_public_name_leads_somewhere():
    assert [name for name in ebbtide.__all__ if not getattr(ebbtide, name).__doc__] == []


def test_a_file_that_breaks_a_rule_would_have_been_noticed():
    """A test of `offenders`: it looks at every file and names the one."""
    assert offenders(lambda path: ["bad"] * (path.name == "keys.py")) == {"src/ebbtide/keys.py": ["bad"]}


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'Transformers'"):
        _ = ebbtide.Transformers  # pyright: ignore
    assert set(dir(ebbtide)) == set(ebbtide.__all__)


HEAVY = {"jax", "numpy", "matplotlib", "scipy", "optax", "polars"}


def loaded(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter has loaded after running `code`."""
    script = f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint('\\n', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return HEAVY & set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import ebbtide",
        "import ebbtide; ebbtide.__version__; ebbtide.__all__; ebbtide.InputError",
        "sys.argv = ['ebbtide', '--help']; import runpy; runpy.run_module('ebbtide.cli', run_name='__main__')",
        "sys.argv = ['ebbtide', 'run', '--help']; import runpy; runpy.run_module('ebbtide.cli', run_name='__main__')",
        "sys.argv = ['ebbtide', 'bench', '--help']; import runpy; runpy.run_module('ebbtide.cli', run_name='__main__')",
        "sys.argv = ['ebbtide', '--version']; import runpy; runpy.run_module('ebbtide.cli', run_name='__main__')",
    ],
)
def test_importing_and_asking_for_help_load_nothing_heavy(code):
    assert loaded(code) == set()


def test_runs_are_listed_without_jax(tmp_path):
    write_run(tmp_path / "one", {"icl": np.full((2, 3), 0.5)}, np.ones((2, 3)))
    words = ["ebbtide", "ls", str(tmp_path)]
    code = f"import sys; sys.argv = {words!r}; import runpy; runpy.run_module('ebbtide.cli', run_name='__main__')"
    assert loaded(code) <= {"numpy"}


def test_loading_something_heavy_would_have_been_noticed():
    """A test of the test above."""
    assert {"jax", "numpy"} <= loaded("import ebbtide; ebbtide.Spec")


def test_help_is_printed_by_the_module_too():
    done = subprocess.run([sys.executable, "-m", "ebbtide.cli", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "verify" in done.stdout and not done.stderr


ORDER = (
    ("checks", "compile", "errors", "interrupts", "keys", "machine", "notebook", "places", "standard_output", "traced"),
    ("device_messages", "runs", "sources", "terminal", "user_code"),
    ("data", "tasks"),
    ("models",),
    ("evaluation", "kernel"),
    ("mechanisms", "report"),
    ("training",),
    ("sweeps", "verify"),
    ("studies",),
    ("analysis",),
    ("contest",),
    ("papers",),
    ("bench", "follow", "pages"),
    ("dashboard",),
    ("cli",),
    ("__main__",),
)
FLOORS = {part: floor for floor, parts in enumerate(ORDER) for part in parts}
"""A part of the package imports from floors below its own only."""


def too_high(part: str, tree: ast.AST) -> set[str]:
    return {other for other in imports(tree) if other != part and FLOORS[other] >= FLOORS[part]}


def test_everything_imports_from_lower_floors_only():
    def found(path: Path) -> set[str]:
        part = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        return set() if part == "__init__" else too_high(part, tree_of(path))

    assert offenders(found) == {}


def test_no_test_file_imports_another():
    """What several share is in a file of tools."""

    def found(path: Path) -> set[str]:
        froms = [
            node.module or "" for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)
        ]
        return {name for name in froms if name.startswith("test_") and name != path.stem}

    assert offenders(found, TESTS) == {}


def test_every_part_has_a_floor():
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in SOURCES} - {"__init__"}
    assert parts == set(FLOORS)


def test_an_import_from_the_same_or_a_higher_floor_would_have_been_noticed():
    """A test of the test above: also inside functions, and whichever way it is written."""
    assert too_high("papers", ast.parse("import ebbtide.pages.html")) == {"pages"}
    assert too_high("bench", ast.parse("from ebbtide.pages import html")) == {"pages"}
    lines = ("from ebbtide.training.spec import Spec", "import ebbtide.training.spec", "from ebbtide import training")
    for text in (*lines, *[f"def f():\n    {one}" for one in lines]):
        assert too_high("report", ast.parse(text)) == {"training"}
        assert too_high("studies", ast.parse(text)) == set()


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The circles of a graph: groups of names each of which leads to the others, and names that lead to themselves."""
    reach = {name: set(following) for name, following in graph.items()}
    for middle in graph:
        for name in graph:
            if middle in reach[name]:
                reach[name] |= reach[middle]
    groups = {tuple(sorted(o for o in graph if o in reach[n] and n in reach[o])) for n in graph if n in reach[n]}
    return [list(group) for group in sorted(groups)]


def test_no_module_imports_itself_through_others():
    """Within a package too, inside functions and for types alone."""
    assert circles({name_of(path): modules(tree_of(path)) for path in SOURCES}) == []


def test_a_circle_would_have_been_noticed():
    """A test of the test above."""
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a", "e"}, "e": set(), "f": {"f"}}) == [
        ["a", "b", "c"],
        ["f"],
    ]


def test_what_is_imported_by_its_name_is_known():
    """Such an import is not seen by the tests above: public names, commands, the list of studies, what a notebook
    shows."""

    def found(path: Path) -> list[str]:
        calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
        texts = [ast.unparse(call) for call in calls if ast.unparse(call.func).endswith("import_module")]
        return [text for text in texts if re.search("ebbtide|REGISTRY|PAGES", text)]

    known = {"__init__.py", "cli/command.py", "notebook.py", "sweeps/bases.py"}
    assert set(offenders(found)) == {f"src/ebbtide/{name}" for name in known}


def test_reports_never_import_training_not_even_through_others():
    """Walks the imports of report/ to the end."""
    graph = {name_of(p): modules(tree_of(p)) for p in SOURCES}
    reached, left = set(), [name for name in graph if name.startswith("ebbtide.report.")]
    assert len(left) >= 4
    while left:
        name = left.pop()
        if name not in reached:
            reached.add(name)
            left += graph[name]
    assert not {name for name in reached if name.startswith(("ebbtide.training", "ebbtide.studies"))}
    assert "ebbtide.runs.folder" in reached


def modules(tree: ast.AST) -> set[str]:
    """The modules of the package that a module imports, anywhere in it; a package only where a name of its own is."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ebbtide"):
            named = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {name if name in MODULES else node.module for name in named}
    return found & set(MODULES)


UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "yaml", "joblib"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}


def unsafe(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNSAFE_MODULES:
            found.append(node.module)
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in UNSAFE_CALLS:
                found.append(node.func.id)
            for keyword in node.keywords:
                constant = keyword.value.value if isinstance(keyword.value, ast.Constant) else True
                if keyword.arg in ("allow_pickle", "shell") and constant is not False:
                    found.append(f"{keyword.arg}={constant}")
            of_numpy = isinstance(node.func, ast.Attribute) and ast.unparse(node.func) in ("np.load", "numpy.load")
            if of_numpy and not any(k.arg == "allow_pickle" for k in node.keywords):
                found.append("np.load without allow_pickle=False")
    return found


def test_nothing_that_is_read_can_execute():
    assert offenders(lambda path: unsafe(tree_of(path))) == {}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from yaml import load",
        "eval('1')",
        "exec(text)",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=flag)",
        "np.load(f)",
        "subprocess.run(x, shell=True)",
    ],
)
def test_something_that_can_execute_would_have_been_noticed(text):
    assert len(unsafe(ast.parse(text))) == 1


def is_stub(node: ast.AST) -> bool:
    body = getattr(node, "body", [])
    return len(body) == 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)


def undocumented(tree: ast.Module) -> list[str]:
    """Public functions, classes and methods without a docstring. Stubs may go without, and so may a
    short method whose name its class shares with a documented one in the package (an override)."""
    found = []
    if not ast.get_docstring(tree):
        found.append("module")
    for node in tree.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            found.append(node.name)
        for inner in node.body if isinstance(node, ast.ClassDef) else []:
            if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                short = len(inner.body) <= 5 and inner.name in shared_methods()
                if not ast.get_docstring(inner) and not is_stub(inner) and not short:
                    found.append(f"{node.name}.{inner.name}")
    return found


@cache
def shared_methods() -> set[str]:
    """Method names that several classes have: they are told once."""
    counts: dict[str, int] = {}
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef):
                        counts[inner.name] = counts.get(inner.name, 0) + 1
    return {name for name, count in counts.items() if count > 1}


def test_everything_public_is_documented():
    assert offenders(lambda path: undocumented(tree_of(path))) == {}


def test_something_undocumented_would_have_been_noticed():
    tree = ast.parse('"""m."""\ndef f(): return 1\nclass A:\n    def only_here(self): return 2\ndef _p(): return 3')
    assert undocumented(tree) == ["f", "A", "A.only_here"]


MACHINE = re.compile(r"(?<![\w.])/(home|root|Users|work|mnt|tmp|scratch)/|[A-Z]:\\")


def test_no_text_names_a_path_of_some_machine():
    assert offenders(lambda path: MACHINE.findall(path.read_text()), TEXTS) == {}


def test_a_machine_path_would_have_been_noticed():
    for text in ("see /home/me/x", "`/work/a`", "(/tmp/b)", r"C:\Users"):
        assert MACHINE.search(text)
    assert not MACHINE.search("sources/work/a and https://x.org/home/")


CITED = re.compile(r"(?<![\w/.:-])[\w./-]*\w\.md\b")


def missing_pages(text: str, path: Path) -> list[str]:
    """Pages that a file names and that are not there: from where the file lies, the root or the package; a page may
    name another page without its folder."""
    folders = [path.parent, ROOT, PACKAGE]
    folders += [ROOT / "docs", ROOT / "docs/papers"] if path.suffix == ".md" else []
    return [name for name in CITED.findall(text) if not any((folder / name).is_file() for folder in folders)]


def test_every_page_that_is_named_is_there():
    assert offenders(lambda path: missing_pages(path.read_text(), path), [*TEXTS, *TESTS]) == {}


def test_a_page_that_is_not_there_would_have_been_noticed():
    """A test of the test above. A section of a page that lies elsewhere is no help to who reads the code."""
    page, code = ROOT / "docs/papers/transience.md", PACKAGE / "cli/parser.py"
    name = page.name
    assert missing_pages(f"{name} 3.4, [a](../papers/{name}), https://x.org/{name}", page) == []
    assert missing_pages(f"see {name} 3.4 and docs/papers/{name}", code) == [name]
    assert missing_pages(f"[a](../papers/none-{name})", page) == [f"../papers/none-{name}"]


FENCED = re.compile(r"```.*?```", re.DOTALL)
LINK = re.compile(r"\]\(([^)\s#]*)#([^)\s]+)\)")


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def missing_headings(text: str, path: Path) -> list[str]:
    """The links of a page to headings that are not there, on the page itself or on another one."""
    links = [(name, anchor) for name, anchor in LINK.findall(FENCED.sub("", text)) if "://" not in name]
    pages = {name: anchors((path.parent / name).read_text() if name else text) for name, _ in links}
    return [f"{name}#{anchor}" for name, anchor in links if anchor not in pages[name]]


def test_every_heading_that_is_linked_to_is_there():
    pages = [path for path in TEXTS if path.suffix == ".md"]
    assert offenders(lambda path: missing_headings(path.read_text(), path), pages) == {}


def test_a_heading_that_is_not_there_would_have_been_noticed():
    """A test of the test above."""
    text = "# One `thing`, two\n[a](#one-thing-two) [b](#three) [c](README.md#data) [d](README.md#none)"
    assert missing_headings(text, ROOT / "LOG.md") == ["#three", "README.md#none"]


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert ebbtide.__version__ == version("ebbtide")


def test_there_are_texts_to_check():
    assert {"README.md", "docs/architecture.md", "src/ebbtide/runs/README.md"} <= {
        str(p.relative_to(ROOT)).replace(os.sep, "/") for p in TEXTS
    }
